"""Module _fleet is what the suites of clients and servers call and serve."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import shoal
from shoal import plugins, wire
from shoal.broker.memory import MemoryBroker
from shoal.client import Client
from shoal.client._settings import ClientSettings
from shoal.client.rpc import RpcClient
from shoal.middleware import Middleware
from shoal.registry.memory import MemoryRegistry
from shoal.selector import Selector
from shoal.selector.round_robin import RoundRobinSelector
from shoal.server import Server
from shoal.server._settings import ServerSettings
from shoal.server.rpc import RpcServer
from shoal.transport import Transport
from shoal.transport.memory import MemoryTransport

WAIT = 10.0  # seconds after which something hangs

leak: contextvars.ContextVar[str] = contextvars.ContextVar("leak", default="clean")


@dataclass
class Item:
    text: str = ""
    number: int = 0


@dataclass
class Total:
    number: int
    texts: list[str] = field(default_factory=list[str])


class Echo:
    """Endpoints of every shape, and ways to fail."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.finished = asyncio.Event()
        self.calls = 0
        self.release = asyncio.Event()

    async def unary(self, request: Item) -> Item:
        """Give the request back."""
        self.calls += 1
        return Item(f"got {request.text}", request.number + 1)

    def blocking(self, request: Item) -> Item:
        """Give the request back from a thread, which knows the call's metadata."""
        return Item(shoal.metadata().get("Colour") or "", request.number)

    async def nothing(self) -> None:
        """Take and give nothing."""

    async def failing(self, request: Item) -> Item:
        """Fail with the code that is asked for."""
        from shoal.errors import from_parts

        self.calls += 1
        raise from_parts("some.id", request.number, request.text)

    async def surprising(self, request: Item) -> Item:
        """Fail as nobody foresaw."""
        raise KeyError("secret detail")

    async def waiting(self, request: Item) -> Item:
        """Wait to be cancelled, or released."""
        self.calls += 1
        self.started.set()
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return request

    async def metadata(self, request: Item) -> dict[str, str]:
        """Give the metadata of the call."""
        return shoal.metadata()

    async def remaining(self, request: Item) -> float:
        """Give the seconds that are left."""
        from shoal.context import remaining

        left = remaining()
        return -1.0 if left is None else left

    async def leaking(self, request: Item) -> str:
        """Set a context variable and give what it was."""
        was = leak.get()
        leak.set(request.text)
        return was

    async def timed(self, request: Item) -> str:
        """Use asyncio's own time-out, which needs a task."""
        try:
            async with asyncio.timeout(0.001):
                await asyncio.sleep(WAIT)
        except TimeoutError:
            return "timed out"
        return "not timed out"

    async def count(self, request: Item) -> AsyncIterator[Item]:
        """Stream as many items as asked for."""
        for number in range(request.number):
            yield Item(request.text, number)

    async def endless(self, request: Item) -> AsyncIterator[Item]:
        """Stream until the client has enough."""
        self.started.set()
        number = 0
        try:
            while True:
                yield Item(request.text, number)
                number += 1
                await asyncio.sleep(0.001)
        finally:
            self.cancelled.set()

    async def broken(self, request: Item) -> AsyncIterator[Item]:
        """Stream one item and fail."""
        yield request
        raise shoal.Forbidden("no more", id="some.id")

    async def total(self, items: AsyncIterator[Item]) -> Total:
        """Add up what is streamed in."""
        total = Total(0)
        async for item in items:
            self.started.set()
            total.number += item.number
            total.texts.append(item.text)
        self.finished.set()
        return total

    async def chat(self, items: AsyncIterator[Item]) -> AsyncIterator[Item]:
        """Answer each item as it comes, and say goodbye at the end."""
        self.started.set()
        async for item in items:
            yield Item(f"got {item.text}", item.number)
        yield Item("bye")


class Fleet:
    """A registry and a broker in memory, and any transport, with what uses them."""

    def __init__(self, transport: Transport | None = None) -> None:
        self.transport = transport or MemoryTransport()
        self.registry = MemoryRegistry()
        self.broker = MemoryBroker()
        self.codecs = wire.Codecs(plugins.load("codec", name)() for name in ("json", "bytes"))
        self.selector: Selector = RoundRobinSelector(self.registry)

    def server(
        self, name: str, middleware: Sequence[Middleware] = (), **settings: Any
    ) -> RpcServer:
        """Return a server of ours."""
        settings.setdefault("address", "127.0.0.1:0")
        return RpcServer(name, **self.parts(), registry=self.registry, middleware=middleware,
                         settings=ServerSettings(**settings))  # fmt: skip

    def client(self, middleware: Sequence[Middleware] = (), **settings: Any) -> RpcClient:
        """Return a client of ours."""
        return RpcClient(
            **self.parts(),
            selector=self.selector,
            middleware=middleware,
            settings=ClientSettings(**settings),
        )

    def parts(self) -> dict[str, Any]:
        """Return what both clients and servers are made of."""
        return {"transport": self.transport, "broker": self.broker, "codecs": self.codecs}


@asynccontextmanager
async def running(fleet: Fleet, *owners: Server | Client) -> AsyncIterator[None]:
    """Start the servers, stop all at the end, and see that no task of theirs is left."""
    before = asyncio.all_tasks()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(fleet.selector.close)
        stack.push_async_callback(fleet.broker.disconnect)
        for owner in owners:
            if start := getattr(owner, "start", None):
                await start()
            end = "stop" if start else "close"
            stack.push_async_callback(getattr(owner, end))
        yield
    await no_tasks_since(before)


async def no_tasks_since(before: set[asyncio.Task[Any]]) -> None:
    """Fail if a task lives that did not live then."""
    left: set[asyncio.Task[Any]] = set()
    for _ in range(200):
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if not left:
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"tasks were left behind: {left}")


async def within(what: Awaitable[Any]) -> Any:
    """Await something that must not hang."""
    async with asyncio.timeout(WAIT):
        return await what


async def stream_of(*items: Any, gate: asyncio.Event | None = None) -> AsyncIterator[Any]:
    """Yield the items, the last one only when the gate opens."""
    for item in items[:-1]:
        yield item
    if gate is not None:
        await gate.wait()
    for item in items[-1:]:
        yield item
