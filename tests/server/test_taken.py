"""Requests that are answered without the way through the connection's task."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

import shoal
from shoal.server._connection import Connection

seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="nothing")


@dataclass
class Text:
    value: str


class Odd:
    """Handlers that do in their first step what is hardest for who runs it."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[object] | None] = set()
        self.closed = 0

    async def at_once(self, request: Text) -> Text:
        self.tasks.add(asyncio.current_task())
        before = seen.get()
        seen.set(request.value)
        return Text(before)

    async def waits(self, request: Text) -> Text:
        task = asyncio.current_task()
        await asyncio.sleep(0.001)
        assert asyncio.current_task() is task
        seen.set(request.value)
        await asyncio.sleep(0)
        return Text(seen.get())

    async def limits(self, request: Text) -> Text:
        try:
            async with asyncio.timeout(0.01):
                await asyncio.sleep(10)
        except TimeoutError:
            return Text("late")
        return Text("never")

    async def groups(self, request: Text) -> Text:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.waits(request)) for _ in range(3)]
        return Text("".join(task.result().value for task in tasks))

    async def fails(self, request: Text) -> Text:
        raise shoal.Conflict(request.value)

    async def breaks(self, request: Text) -> Text:
        raise LookupError(request.value)

    async def large(self, request: Text) -> Text:
        return Text(request.value * 1_000_000)

    async def cancels(self, request: Text) -> Text:
        if request.value == "yes":
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        try:
            await asyncio.sleep(1 if request.value == "yes" else 0)
        finally:
            self.closed += 1
        return Text("not cancelled")

    async def raises_cancelled(self, request: Text) -> Text:
        if request.value == "yes":
            raise asyncio.CancelledError
        return Text("no")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Every time a message was offered: whether it was done with at once."""
    results: list[bool] = []
    take = Connection._take

    def recorded(self: Connection, message: object) -> bool:
        results.append(take(self, message))  # type: ignore[arg-type]  # it is a message
        return results[-1]

    monkeypatch.setattr(Connection, "_take", recorded)
    return results


@asynccontextmanager
async def called() -> AsyncIterator[tuple[Odd, Odd]]:
    """A handler, and a stub that calls it over HTTP."""
    handler = Odd()
    service = shoal.Service("odd", registry="memory", address="127.0.0.1:0")
    service.handle(handler)
    async with asyncio.timeout(30), service:
        yield handler, shoal.stub(Odd, "odd", service.client, address=service.server.address)


async def test_most_are_done_at_once_in_the_connections_task(taken: list[bool]) -> None:
    async with called() as (handler, odd):
        for _ in range(10):
            assert await odd.at_once(Text("mine")) == Text("nothing")
        assert True in taken
        assert len(handler.tasks) == 1
        assert None not in handler.tasks


async def test_those_that_wait_go_on_in_the_task(taken: list[bool]) -> None:
    async with called() as (_, odd):
        for _ in range(5):
            assert await odd.waits(Text("a")) == Text("a")
            assert await odd.limits(Text("")) == Text("late")
            assert await odd.groups(Text("b")) == Text("bbb")
            assert await odd.at_once(Text("c")) == Text("nothing")
        assert True in taken
        assert False in taken


async def test_errors_and_large_replies() -> None:
    async with called() as (_, odd):
        for _ in range(4):
            with pytest.raises(shoal.Conflict, match="no way"):
                await odd.fails(Text("no way"))
            with pytest.raises(shoal.InternalServerError):
                await odd.breaks(Text("x"))
            assert len((await odd.large(Text("x"))).value) == 1_000_000


@pytest.mark.parametrize("method", ["cancels", "raises_cancelled"])
async def test_a_handler_that_cancels_its_own_task_ends_the_connection_only(method: str) -> None:
    async with called() as (handler, odd):
        for _ in range(3):
            await getattr(odd, method)(Text("no"))
        with pytest.raises(shoal.Error):
            await getattr(odd, method)(Text("yes"))
        assert handler.closed == (4 if method == "cancels" else 0)
        for _ in range(3):
            await getattr(odd, method)(Text("no"))


async def test_a_caller_that_gives_up_cancels_what_was_begun() -> None:
    async with called() as (handler, odd):
        for _ in range(3):
            await odd.cancels(Text("no"))
        task = asyncio.create_task(odd.limits(Text("")))
        await asyncio.sleep(0.001)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await odd.at_once(Text("")) == Text("nothing")
        assert handler.closed == 3
