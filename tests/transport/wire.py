"""Ends of connections for tests: bytes straight into a socket, and raw peers over TCP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from typing import Any

from shoal.errors import ConnectionClosed
from shoal.message import Message
from shoal.transport import Socket
from shoal.transport._http1 import BUFFER, ClientSocket, HttpSocket, ServerSocket
from shoal.transport.http import HttpTransport

PATIENCE = 20.0
LIMIT = 4 * 1024 * 1024


class Wire(asyncio.Transport):
    """A transport whose other end is the test."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)})
        self.written = bytearray()
        self.closing = False
        self.ended = False
        self.reading = True

    def write(self, data: Any) -> None:
        self.written += data

    def write_eof(self) -> None:
        self.ended = True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True


def server_socket(limit: int = LIMIT, timeout: float = 30.0) -> tuple[ServerSocket, Wire]:
    """Return the server's side of a connection, and its other end."""
    socket = ServerSocket(memoryview(bytearray(BUFFER)), limit, timeout)
    return socket, _connected(socket)


def client_socket(limit: int = LIMIT, timeout: float = 30.0) -> tuple[ClientSocket, Wire]:
    """Return the client's side of a connection, and its other end."""
    socket = ClientSocket("127.0.0.1:9", memoryview(bytearray(BUFFER)), limit, timeout)
    return socket, _connected(socket)


def _connected(socket: HttpSocket) -> Wire:
    wire = Wire()
    socket.connection_made(wire)
    return wire


def feed(socket: HttpSocket, *pieces: bytes) -> None:
    """Hand over pieces as an event loop does."""
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            buffer = socket.get_buffer(-1)
            part = rest[: len(buffer)]
            buffer[: len(part)] = part
            socket.buffer_updated(len(part))
            rest = rest[len(part) :]


def ended(socket: HttpSocket) -> None:
    """Tell a socket that its connection is gone, so that it leaves no timer behind."""
    socket.connection_lost(None)


async def received(socket: Socket) -> list[Message]:
    """Return what has arrived, up to the end of the connection."""
    messages = []
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                messages.append(await socket.recv())
    except ConnectionClosed:
        return messages


def everywhere(data: bytes) -> Iterable[tuple[bytes, bytes]]:
    """Yield the two parts of data for every place it can be split at."""
    return ((data[:place], data[place:]) for place in range(len(data) + 1))


async def until(condition: Callable[[], object]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - there is nothing else that tells
            await asyncio.sleep(0.01)


async def echo(socket: Socket) -> None:
    """Serve a socket by sending everything back."""
    while True:
        message = await socket.recv()
        await socket.send(Message({"Echo": "yes"}, message.body))


@asynccontextmanager
async def serving(
    accept: Callable[[Socket], Any] = echo, **settings: Any
) -> AsyncIterator[tuple[str, int]]:
    """Listen with the http transport for a block, and see that nothing is left of it."""
    before = asyncio.all_tasks()
    async with asyncio.timeout(4 * PATIENCE):
        listener = await HttpTransport(**settings).listen("127.0.0.1:0", accept)
        host, _, port = listener.address.rpartition(":")
        try:
            yield host, int(port)
        finally:
            await listener.close()
    assert asyncio.all_tasks() - before == set()


@asynccontextmanager
async def raw(
    address: tuple[str, int], **settings: Any
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect with nothing but TCP."""
    reader, writer = await asyncio.open_connection(*address, limit=2**22, **settings)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


@asynccontextmanager
async def answering(*answers: bytes, close: bool = True) -> AsyncIterator[str]:
    """Be a server that says the same to everybody, whatever it is asked; give its address."""
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await reader.read(1)
            for answer in answers:
                writer.write(answer)
                await writer.drain()
                await asyncio.sleep(0)
            if not close:
                await reader.read(-1)
        except OSError:
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield f"{host}:{port}"
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def response(reader: asyncio.StreamReader) -> tuple[int, dict[bytes, bytes], bytes]:
    """Read one response: status, headers, body."""
    async with asyncio.timeout(PATIENCE):
        head = await reader.readuntil(b"\r\n\r\n")
        status, *lines = head[:-4].split(b"\r\n")
        header = dict(line.split(b": ", 1) for line in lines)
        return (
            int(status.split()[1]),
            header,
            await reader.readexactly(int(header.get(b"Content-Length", b"0"))),
        )
