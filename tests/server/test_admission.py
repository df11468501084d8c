"""Tests of shoal/server/_admission.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import pytest

import shoal
from shoal.deadlines import Deadlines
from shoal.errors import TooManyRequests
from shoal.server._admission import CALM, LEAST, TICK, WINDOW, Admission
from shoal.server._debug import HealthRequest, HealthResponse
from shoal.server.rpc import RpcServer
from shoal.testing import FakeClock, Network

COST = 0.004  # seconds the loop is held by a request


class Work:
    """Requests that hold the loop, behind an admission of their own."""

    def __init__(self, clock: FakeClock, most: int = 10_000) -> None:
        self.clock = clock
        self.running = 0
        self.done = 0
        self.refused: list[TooManyRequests] = []
        self.waits: list[float] = []
        self.limits = Deadlines(asyncio.get_running_loop())
        self.admission = Admission("work", most, lambda: self.running, self.limits)
        self.tasks: set[asyncio.Task[None]] = set()

    def arrive(self, seconds: float | None = 0.3, *, cost: float = COST, wait: float = 0) -> None:
        task = asyncio.get_running_loop().create_task(self._one(seconds, cost, wait))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _one(self, seconds: float | None, cost: float, wait: float) -> None:
        if not self.admission.at_once:
            try:
                self.waits.append(await self.admission.enter(seconds))
            except TooManyRequests as error:
                self.refused.append(error)
                return
        self.running += 1
        try:
            self.clock.block(cost)
            await asyncio.sleep(wait)
        finally:
            self.running -= 1
            self.done += 1
            if self.admission.line.waiting:
                self.admission.line.advance()

    async def load(self, rate: float, seconds: float) -> None:
        async for _ in arrivals(self.clock, rate, seconds):
            self.arrive()


async def arrivals(clock: FakeClock, rate: float, seconds: float) -> AsyncIterator[None]:
    """Yield at a rate; what is due while the loop is held is due in a bunch."""
    due, end = clock.now, clock.now + seconds
    while due < end:
        while due <= clock.now:
            due += 1 / rate
            yield
        before = clock.now
        for _ in range(4):  # turns of the loop until one holds it
            if clock.now == before:
                await asyncio.sleep(0)
        if clock.now == before:
            clock.block(due - clock.now)


@pytest.fixture
async def work() -> AsyncIterator[Work]:
    async with FakeClock() as clock:
        work = Work(clock)
        yield work
        work.admission.close()
        work.limits.close()
        for task in list(work.tasks):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_below_capacity_nobody_is_refused(work: Work) -> None:
    await work.load(rate=0.9 / COST, seconds=5)
    await work.clock.advance(1)
    assert not work.refused
    assert work.done == pytest.approx(0.9 / COST * 5, abs=2)


async def test_five_times_capacity_leaves_the_server_what_it_can_do(work: Work) -> None:
    begun = work.clock.now
    await work.load(rate=5 / COST, seconds=5)
    capacity = (work.clock.now - begun) / COST
    assert work.done > 0.9 * capacity
    assert len(work.refused) > 3 * capacity
    assert work.admission.overloaded
    assert max(work.waits) <= 0.15 + 2 * COST  # half of what their callers give them
    assert all(error.retry_after and error.retry_after >= 0.1 for error in work.refused)


async def test_a_hundred_callers_who_wait_for_each_other_are_all_served(work: Work) -> None:
    """They are more than the server can do at once, and still none waits too long."""
    for _ in range(5):
        for _ in range(100):
            work.arrive(5.0)
        while work.done % 100:
            await work.clock.advance(COST)
    assert not work.refused


async def test_a_pause_of_the_loop_refuses_nobody(work: Work) -> None:
    work.arrive()
    await work.clock.advance(0.01)
    work.clock.block(0.5)  # a collection of garbage, a slow handler, a busy machine
    for _ in range(50):
        work.arrive()
    await work.clock.advance(1)
    assert work.done == 51
    assert not work.refused
    assert not work.admission.overloaded


async def test_a_server_that_is_busy_recovers_from_a_pause(work: Work) -> None:
    """With callers who wait for each other somebody is always in the line, for a moment."""

    async def caller() -> None:
        while work.clock.now < end:
            await work._one(0.3, cost=0.0005, wait=0)

    work.arrive()
    await work.clock.advance(0.001)
    work.clock.block(0.1)
    end = work.clock.now + TICK * (CALM + 10)
    callers = [asyncio.ensure_future(caller()) for _ in range(30)]
    await asyncio.gather(*callers)
    assert work.waits  # it was in trouble
    assert work.admission.at_once
    assert not work.refused


async def test_handlers_that_only_wait_are_no_overload(work: Work) -> None:
    for _ in range(2000):
        work.arrive(cost=0, wait=5)
        await work.clock.advance(0.001)
    assert not work.refused
    assert not work.admission.overloaded
    assert work.admission.limit == 10_000
    await work.clock.advance(5)
    assert work.done == 2000


async def test_fewer_may_run_while_the_loop_stays_late_and_more_again_afterwards(
    work: Work,
) -> None:
    for _ in range(100):
        work.arrive(cost=0, wait=3600)
    await work.clock.advance(0.001)
    assert work.running == 100
    for _ in range(WINDOW * 40):
        work.clock.block(TICK * 4)  # what they do when they go on
        await work.clock.advance(0.001)
    assert work.admission.limit == LEAST
    work.arrive(cost=0)
    await work.clock.advance(0.001)
    assert len(work.admission.line.waiting) == 1
    await work.clock.advance(1)
    assert work.admission.limit > 100
    assert not work.admission.line.waiting
    assert work.done == 1


async def test_nothing_watches_a_loop_without_requests(work: Work) -> None:
    work.arrive()
    await work.clock.advance(TICK)
    assert work.admission.at_once
    await work.clock.advance(TICK * (CALM + 1))
    assert not work.admission.at_once
    assert work.admission._timer is None
    assert "at ease" in repr(work.admission)


async def test_who_gives_up_leaves_the_line_and_closing_refuses_the_rest(work: Work) -> None:
    work.arrive()
    await work.clock.advance(0.001)
    work.clock.block(1.0)
    await work.clock.advance(TICK)
    assert work.admission.overloaded
    line = work.admission.line
    waiting = [asyncio.ensure_future(line.wait(1.0)) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    work.admission.close()
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(ended[0], asyncio.CancelledError)
    assert all(isinstance(one, TooManyRequests) for one in ended[1:])
    assert await work.admission.enter(1.0) == 0.0
    assert "2 refused" in repr(line)


class Slow:
    """Holds the loop of its server."""

    clock: FakeClock

    async def compute(self) -> None:
        self.clock.block(0.05)


async def test_a_refused_call_tells_its_caller_and_tools_are_still_answered() -> None:
    async with asyncio.timeout(30), FakeClock() as clock, Network() as network:
        Slow.clock = clock
        service = await network.serve(Slow())
        slow = shoal.stub(Slow, "slow", network.client, timeout=0.3)
        await slow.compute()
        calls = [asyncio.ensure_future(slow.compute()) async for _ in arrivals(clock, 5 / 0.05, 4)]
        server = service.server
        assert isinstance(server, RpcServer)
        assert server.admission.overloaded
        request = shoal.Request("slow", "Debug.Health", HealthRequest(), HealthResponse)
        asked = asyncio.ensure_future(network.client.call(request))
        await clock.advance(0.1)
        assert (await asked).status == "ok"
        await clock.advance(2)
        ended = await asyncio.gather(*calls, return_exceptions=True)
        refused = [one for one in ended if isinstance(one, shoal.TooManyRequests)]
        assert len(refused) > 200
        assert all(one.unsent and one.retry_after for one in refused)
        assert sum(one is None for one in ended) > 60
