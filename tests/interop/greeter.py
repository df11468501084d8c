"""The handlers of the Go peers (go/peer/handlers.go) written for Shoal: facts go both ways."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import shoal
from shoal import context
from shoal.errors import from_parts


@dataclass
class HelloRequest:
    name: str = ""


@dataclass
class HelloReply:
    greeting: str = ""


@dataclass
class FailRequest:
    id: str = ""
    code: int = 0
    detail: str = ""


@dataclass
class PlainRequest:
    text: str = ""


@dataclass
class SlowRequest:
    ms: int = 0


@dataclass
class SlowReply:
    deadline_ms: int = -1
    slept: bool = False


@dataclass
class Empty:
    pass


@dataclass
class MetaReply:
    header: dict[str, str] = field(default_factory=dict[str, str])


@dataclass
class CountRequest:
    n: int = 0


@dataclass
class CountReply:
    i: int = 0


@dataclass
class SumRequest:
    n: int = 0
    last: bool = False
    ms: int = 0


@dataclass
class SumReply:
    total: int = 0


class Greeter:
    """Does what the Greeter of the Go peers does."""

    def __init__(self) -> None:
        self._happened: asyncio.Queue[str] = asyncio.Queue()

    async def _event(self, what: str) -> None:
        """Wait until something has happened in a handler; fails when it does not in time."""
        async with asyncio.timeout(10):
            while await self._happened.get() != what:
                pass

    async def hello(self, request: HelloRequest) -> HelloReply:
        """Greet somebody."""
        return HelloReply(f"Hello {request.name}")

    async def fail(self, request: FailRequest) -> Empty:
        raise from_parts(request.id, request.code, request.detail)

    async def plain(self, request: PlainRequest) -> Empty:
        raise shoal.Error(request.text)

    async def slow(self, request: SlowRequest) -> SlowReply:
        left = context.remaining()
        try:
            await asyncio.sleep(request.ms / 1000)
        except asyncio.CancelledError:
            self._happened.put_nowait("cancelled")
            raise
        return SlowReply(-1 if left is None else int(left * 1000), True)

    async def meta(self, request: Empty) -> MetaReply:
        return MetaReply(dict(shoal.metadata()))

    async def count(self, request: CountRequest) -> AsyncIterator[CountReply]:
        try:
            for i in range(request.n):
                yield CountReply(i)
                await asyncio.sleep(0.005 if request.n > 100 else 0)
        except (asyncio.CancelledError, GeneratorExit):
            self._happened.put_nowait("count cancelled")
            raise

    async def chat(self, requests: AsyncIterator[HelloRequest]) -> AsyncIterator[HelloReply]:
        async for request in requests:
            yield HelloReply(f"Hello {request.name}")
        self._happened.put_nowait("chat ended")

    async def sum(self, requests: AsyncIterator[SumRequest]) -> SumReply:
        total = 0
        async for request in requests:
            total += request.n
            if request.last:
                break
        return SumReply(total)

    async def total(self, requests: AsyncIterator[SumRequest]) -> SumReply:
        return SumReply(sum([request.n async for request in requests]))

    async def stream_fail(self, request: FailRequest) -> AsyncIterator[CountReply]:
        yield CountReply()
        raise from_parts(request.id, request.code, request.detail)


def proto_handler(messages: Any) -> object:
    """Return the handler for the compiled protobuf messages, which exist at run time only."""

    class Proto:
        async def hello(self, request: Any) -> Any:
            return messages.HelloReply(greeting=f"Hello {request.name}", request=request)

        async def count(self, request: Any) -> Any:
            for i in range(request.n):
                yield messages.CountReply(i=i)

    hints = Proto.hello.__annotations__
    hints.update({"request": messages.HelloRequest, "return": messages.HelloReply})
    hints = Proto.count.__annotations__
    hints.update({"request": messages.CountRequest, "return": AsyncIterator[messages.CountReply]})
    return Proto()


def unique(name: str) -> str:
    """Return a service name nobody else on the multicast has."""
    return f"{name}-{uuid.uuid4().hex[:10]}"
