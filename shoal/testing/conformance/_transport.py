"""Module _transport is what the tests of the transport suite stand on: pairs of sockets."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, TypeVar

from shoal.errors import ConnectionClosed
from shoal.message import Message
from shoal.transport import Accept, Listener, Socket, Transport

T = TypeVar("T")


class Accepting:
    """An `accept` that lends its sockets to a test until the test ends."""

    def __init__(self) -> None:
        self.sockets: asyncio.Queue[Socket] = asyncio.Queue()
        self.served = 0
        self.cancelled = 0
        self.ended = 0

    async def __call__(self, socket: Socket) -> None:
        self.served += 1
        self.sockets.put_nowait(socket)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            await asyncio.sleep(0)  # whoever cleans up may wait for something
            raise
        finally:
            self.ended += 1


class TransportSuite:
    """Two transports on one network, and the attributes that say what they truly cannot do."""

    patience: ClassVar[float] = 20.0
    """Seconds after which what a test waits for will not come."""
    address: ClassVar[str] = "127.0.0.1:0"
    """Where to listen so that a free address is chosen."""
    ports: ClassVar[bool] = True
    """Whether addresses are `host:port`, with ranges and wildcards."""
    nonsense: ClassVar[Sequence[str]] = (
        "", "localhost", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:65536", "127.0.0.1:-1",
        "127.0.0.1: 80", "127.0.0.1:+80", "127.0.0.1:\u0661", "127.0.0.1:9-8", "::1:80",
        "[::1:80", "http://127.0.0.1:80", "127.0.0.1:80/", "a b:80", "a\0b:80", "a\nb:80",
        "user@host:80",
    )  # fmt: skip
    """Addresses that are none."""
    notices_death: ClassVar[bool] = True
    """Whether one side learns that the other closed."""
    notices_absence: ClassVar[bool] = True
    """Whether dialling fails where nobody listens, and listening where somebody does."""
    backpressure: ClassVar[bool] = True
    """Whether sending waits while the peer does not receive."""
    largest: ClassVar[int] = 3 * 1024 * 1024
    """A body in bytes that surely fits."""

    _open = 0
    _before: set[asyncio.Task[Any]]

    @abstractmethod
    def make(self) -> Transport:
        """Return a transport; all that one test makes are on one network."""

    def foreign(self, task: asyncio.Task[Any]) -> bool:
        """Whether a task belongs to what outlives sockets, such as a client library's own."""
        return False

    def told(self, listener: Listener) -> Mapping[str, str]:
        """Return the metadata with which a listener is dialled: what it wants told."""
        return listener.metadata

    # For the tests

    async def dial(self, listener: Listener) -> Socket:
        """Dial a listener with another transport."""
        return await self.make().dial(listener.address, self.told(listener))

    @asynccontextmanager
    async def listening(
        self, accept: Accept, address: str | None = None
    ) -> AsyncIterator[Listener]:
        """Listen for a block, and see that nothing is left when the last such block ends."""
        if not self._open:
            self._before = asyncio.all_tasks()
        self._open += 1
        async with asyncio.timeout(4 * self.patience):
            listener = await self.make().listen(address or self.address, accept)
            try:
                yield listener
            finally:
                await listener.close()
                self._open -= 1
        if not self._open:
            left = [task for task in asyncio.all_tasks() - self._before if not self.foreign(task)]
            assert not left, f"closing the listener left {left}"

    @asynccontextmanager
    async def pair(self) -> AsyncIterator[tuple[Socket, Socket]]:
        """Give both ends of a connection, over which one message has gone either way."""
        accepting = Accepting()
        async with self.listening(accepting) as listener:
            client = await self.dial(listener)
            try:
                await client.send(Message({"First": "client"}))
                server = await self.soon(accepting.sockets.get())
                assert (await self.soon(server.recv())).header["First"] == "client"
                await server.send(Message({"First": "server"}))
                assert (await self.soon(client.recv())).header["First"] == "server"
                yield client, server
            finally:
                await client.close()

    async def soon(self, what: Awaitable[T]) -> T:
        """Return what is awaited, which must come."""
        async with asyncio.timeout(self.patience):
            return await what

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until something is so."""
        async with asyncio.timeout(self.patience):
            while not condition():  # noqa: ASYNC110 - there is nothing else that tells
                await asyncio.sleep(0.005)

    async def settled(self, value: Callable[[], int]) -> None:
        """Wait until a number has not changed for a while."""
        before = -1
        while before != value():
            before = value()
            await asyncio.sleep(0.3)

    async def fails(self, socket: Socket) -> ConnectionClosed:
        """Return the error of sending, which must fail sooner or later."""
        async with asyncio.timeout(self.patience):
            while True:
                try:
                    await socket.send(Message({"A": "b"}, b"late"))
                except ConnectionClosed as error:
                    return error
                await asyncio.sleep(0.01)


def numbered(count: int, body: bytes = b"") -> list[Message]:
    """Return messages that tell their place."""
    return [Message({"Number": str(number)}, b"%d %b" % (number, body)) for number in range(count)]


async def send_all(socket: Socket, messages: Sequence[Message]) -> None:
    """Send messages, one after another."""
    for message in messages:
        await socket.send(message)


async def receive(socket: Socket, count: int) -> list[int]:
    """Return the numbers of so many messages."""
    return [int((await socket.recv()).header["Number"]) for _ in range(count)]
