"""Tests of shoal/client/_hedge.py, and of limits for attempts."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

import shoal
from shoal import context
from shoal.client import _hedge
from shoal.client._hedge import FEW, Hedges
from shoal.client.rpc import RpcClient
from shoal.testing import FakeClock, Network

KEY = ("greeter", "Greeter.Hello")


class Attempt:
    """An attempt that takes a while, and may fail then."""

    def __init__(self, seconds: float, reply: str, error: Exception | None = None) -> None:
        self.seconds = seconds
        self.reply = reply
        self.error = error
        self.cancelled = False

    async def __call__(self) -> str:
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        if self.error is not None:
            raise self.error
        return self.reply


@pytest.fixture
async def clock() -> AsyncIterator[FakeClock]:
    async with FakeClock() as clock:
        yield clock


async def run(hedges: Hedges, clock: FakeClock, first: Attempt, second: Attempt) -> Any:
    task = asyncio.ensure_future(hedges.run(KEY, first(), second))
    while not task.done():
        await clock.advance(0.01)
    return await task


async def known(hedges: Hedges, clock: FakeClock) -> None:
    """Let an endpoint be one of which 19 of 20 calls take a tenth of a second."""
    for number in range(4 * FEW):
        took = 0.5 if number % 40 == 0 else 0.1
        await run(hedges, clock, Attempt(took, "first"), Attempt(0, "never"))


async def test_a_second_attempt_begins_where_the_first_is_slow_and_the_loser_is_cancelled(
    clock: FakeClock,
) -> None:
    hedges = Hedges(lambda: True)
    await known(hedges, clock)
    started, won = hedges.started, hedges.won
    assert hedges.slow(KEY) == pytest.approx(0.1, abs=0.02)
    first, second = Attempt(5, "first"), Attempt(0.1, "second")
    before = clock.now
    assert await run(hedges, clock, first, second) == "second"
    assert clock.now - before == pytest.approx(0.2, abs=0.04)
    assert first.cancelled
    first, second = Attempt(0.15, "first"), Attempt(5, "second")
    assert await run(hedges, clock, first, second) == "first"
    assert second.cancelled
    assert (hedges.started - started, hedges.won - won) == (2, 1)
    assert "1 endpoints" in repr(hedges)


async def test_without_budget_or_knowledge_there_is_no_second_attempt(clock: FakeClock) -> None:
    hedges = Hedges(lambda: False)
    await known(hedges, clock)
    assert await run(hedges, clock, Attempt(2, "first"), Attempt(0, "second")) == "first"
    unknown = Hedges(lambda: True)
    assert unknown.slow(KEY) is None
    assert await run(unknown, clock, Attempt(2, "first"), Attempt(0, "second")) == "first"
    assert (hedges.started, unknown.started) == (0, 0)


async def test_a_failure_waits_for_the_other_and_both_raise_the_first(clock: FakeClock) -> None:
    hedges = Hedges(lambda: True)
    await known(hedges, clock)
    failing = Attempt(0.3, "", shoal.Unavailable("first"))
    assert await run(hedges, clock, failing, Attempt(0.5, "second")) == "second"
    with pytest.raises(shoal.Unavailable, match="first"):
        await run(hedges, clock, failing, Attempt(0.5, "", shoal.Unavailable("second")))
    with pytest.raises(shoal.Conflict):
        await run(hedges, clock, Attempt(0, "", shoal.Conflict()), Attempt(0, "never"))


async def test_cancelling_cancels_both(clock: FakeClock) -> None:
    hedges = Hedges(lambda: True)
    await known(hedges, clock)
    first, second = Attempt(5, "first"), Attempt(5, "second")
    task = asyncio.ensure_future(hedges.run(KEY, first(), second))
    await clock.advance(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert first.cancelled
    assert second.cancelled


async def test_a_bounded_number_of_endpoints_is_known(
    clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_hedge, "MOST", 3)
    hedges = Hedges(lambda: True)
    for number in range(10):
        await hedges.run(("greeter", str(number)), Attempt(0, "")(), Attempt(0, ""))
    assert len(hedges._times) == 3


class Greeter:
    """Greets after a while."""

    def __init__(self, clock: FakeClock) -> None:
        self.seconds = 0.01
        self.calls = 0
        self.cancelled = 0
        self.left: list[float] = []
        self._clock = clock

    @shoal.endpoint(idempotent=True, hedge=True)
    async def hello(self) -> str:
        return await self.once()

    async def once(self) -> str:
        self.calls += 1
        self.left.append(context.remaining() or 0.0)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return "hello"


async def test_the_slow_node_of_a_hedged_call_is_helped_out_and_its_handler_cancelled(
    clock: FakeClock,
) -> None:
    async with Network() as network:
        greeters = [Greeter(clock) for _ in range(2)]
        for greeter in greeters:
            await network.serve(greeter)
        stub = shoal.stub(Greeter, "greeter", network.client, timeout=20)

        async def call() -> float:
            begun = clock.now
            task = asyncio.ensure_future(stub.hello())
            while not task.done():
                await clock.advance(0.005)
            assert await task == "hello"
            return clock.now - begun

        for _ in range(2 * FEW):
            await call()
        greeters[0].seconds = 10.0
        took = [await call() for _ in range(20)]
        assert max(took) < 0.1
        assert 1 <= greeters[0].cancelled <= 5  # balancing avoids it from then on
        client = network.client
        assert isinstance(client, RpcClient)
        assert client._hedges.won == greeters[0].cancelled


async def test_what_may_not_run_twice_is_not_hedged(clock: FakeClock) -> None:
    with pytest.raises(ValueError, match="only an idempotent endpoint"):
        shoal.endpoint(hedge=True)
    async with Network() as network:
        await network.serve(Greeter(clock))
        request = shoal.Request("greeter", "Greeter.Once", None, str)
        with pytest.raises(shoal.BadRequest, match="only an idempotent call"):
            await network.client.call(request, hedge=True)


@pytest.mark.parametrize("idempotent", [True, False])
async def test_an_attempt_has_a_limit_of_its_own(clock: FakeClock, idempotent: bool) -> None:
    random.seed(1)  # each call begins with one of the two by chance
    async with Network() as network:
        greeters = [Greeter(clock) for _ in range(2)]
        services = [await network.serve(greeter) for greeter in greeters]
        greeters[0].seconds = 10.0
        stub = shoal.stub(
            Greeter,
            "greeter",
            network.client,
            timeout=5,
            attempt_timeout=0.5,
            idempotent=idempotent,
            address=[service.server.address for service in services],
        )
        results = []
        for _ in range(10):
            task = asyncio.ensure_future(stub.once())
            await clock.advance(1.0)
            results.append((await asyncio.gather(task, return_exceptions=True))[0])
        errors = [one for one in results if isinstance(one, BaseException)]
        assert all(isinstance(error, shoal.Timeout) for error in errors)
        if idempotent:
            assert not errors
        else:
            assert 0 < len(errors) < 10
            text = str(errors[0])
            assert "its attempt_timeout of 0.5 s passed after 0.5" in text
            assert f"attempt 1 on {services[0].server.address}" in text
        assert greeters[0].cancelled == greeters[0].calls  # the server was told of the limit
        assert max(greeters[0].left) <= 0.5
