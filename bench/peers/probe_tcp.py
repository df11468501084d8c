"""probe_tcp: the least a call can cost in Python: uvloop protocols, JSON lines, no headers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from bench import load


class Server(asyncio.Protocol):
    """Answers each line with a line."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self.rest = b""

    def data_received(self, data: bytes) -> None:
        """Answers the whole lines."""
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.transport.write(load.reply_body(line) + b"\n")


class Connection(asyncio.Protocol):
    """A client's connection; one line is under way at a time."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self.received = b""
        self.reply: asyncio.Future[bytes] | None = None
        self.loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        """Wakes the caller when the line is whole."""
        self.received += data
        if self.received.endswith(b"\n") and self.reply is not None:
            self.reply.set_result(self.received)
            self.received = b""

    def connection_lost(self, error: Exception | None) -> None:
        """Fails the caller, if one waits."""
        if self.reply is not None and not self.reply.done():
            self.reply.set_exception(error or ConnectionResetError("the server closed"))

    async def exchange(self, line: bytes) -> bytes:
        """Sends a line and waits for the answer."""
        self.reply = self.loop.create_future()
        self.transport.write(line)
        return await self.reply


@asynccontextmanager
async def serve() -> AsyncIterator[int]:
    """Serves until left."""
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def connect(port: int, concurrency: int) -> AsyncIterator[load.Call]:
    """A pool, last in first out."""
    loop = asyncio.get_running_loop()
    idle = [
        (await loop.create_connection(Connection, "127.0.0.1", port))[1] for _ in range(concurrency)
    ]

    async def call(name: str) -> str:
        connection = idle.pop()
        reply = await connection.exchange(load.request_body(name) + b"\n")
        idle.append(connection)
        return load.decode_reply(reply).greeting

    yield call
    for connection in idle:
        connection.transport.close()


if __name__ == "__main__":
    load.main(serve, connect)
