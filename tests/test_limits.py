"""Tests of shoal/limits.py and shoal/_circuit.py."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import shoal
from shoal import limits
from shoal._circuit import CALLS, FIRST, LONGEST, WINDOW, Circuit, blames
from shoal.limits import Breaker, Bulkhead, RateLimit
from shoal.testing import FakeClock, serve


def call(endpoint: str = "Greeter.Hello", **more: Any) -> shoal.Call:
    return shoal.Call(more.pop("side", "server"), "greeter", endpoint, None, **more)


async def done(call: shoal.Call) -> str:
    return "done"


class Door:
    """The rest of the chain, which waits until it is told to go on."""

    def __init__(self) -> None:
        self.inside = 0
        self.open = asyncio.Event()

    async def __call__(self, call: shoal.Call) -> str:
        self.inside += 1
        try:
            await self.open.wait()
        finally:
            self.inside -= 1
        return "through"


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


# Rates


async def test_a_rate_is_kept_and_a_pause_saves_up_a_burst() -> None:
    async with FakeClock() as clock:
        limit = RateLimit(10, burst=3)
        through = 0
        for _ in range(100):
            try:
                await limit(call(), done)
                through += 1
            except shoal.TooManyRequests as error:
                assert 0 < (error.retry_after or 0) < 0.2  # noqa: PT017
            await clock.advance(0.01)
        assert through == 13 - 1  # three at once, then ten a second
        assert limit.refused == 88
        await clock.advance(60)
        for _ in range(3):
            await limit(call(), done)
        with pytest.raises(shoal.TooManyRequests) as caught:
            await limit(call(), done)
        assert caught.value.retry_after == pytest.approx(0.1)
        await clock.advance(caught.value.retry_after or 0)
        assert await limit(call(), done) == "done"


async def test_each_endpoint_has_its_own_rate_and_other_sides_and_endpoints_none() -> None:
    async with FakeClock():
        limit = RateLimit(1, endpoints=["Greeter.*"])
        await limit(call("Greeter.Hello"), done)
        await limit(call("Greeter.Bye"), done)
        with pytest.raises(shoal.TooManyRequests, match=r"Greeter\.Hello: more than 1 calls"):
            await limit(call("Greeter.Hello"), done)
        for _ in range(3):
            await limit(call("Book.Find"), done)
            await limit(call("Greeter.Hello", side="client"), done)
            await RateLimit(0.001)(call("Debug.Health"), done)


async def test_a_key_divides_a_limit_among_callers_of_which_a_bounded_number_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "MOST", 10)
    async with FakeClock() as clock:
        limit = RateLimit(1, key=lambda call: call.header["User-Id"])
        for user in range(100):
            await limit(call(header={"User-Id": str(user)}), done)
            with pytest.raises(shoal.TooManyRequests):
                await limit(call(header={"User-Id": str(user)}), done)
            await clock.advance(0.01)
        assert len(limit._full) == 10


@pytest.mark.parametrize("make", [lambda: RateLimit(0), lambda: Bulkhead(0)])
def test_limits_that_let_nothing_through_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="never let anything through"):
        make()


# Bulkheads


async def test_so_many_run_so_many_wait_and_the_rest_is_refused() -> None:
    bulkhead, door = Bulkhead(2, waiting=1), Door()
    running = [asyncio.ensure_future(bulkhead(call(), door)) for _ in range(3)]
    await turns()
    assert door.inside == 2
    with pytest.raises(shoal.TooManyRequests, match="2 calls are running and 1 waiting already"):
        await bulkhead(call(), door)
    other = asyncio.ensure_future(bulkhead(call("Book.Find"), door))
    await turns()
    assert door.inside == 3  # each endpoint has a bulkhead of its own
    door.open.set()
    assert await asyncio.gather(*running, other) == ["through"] * 4
    assert not bulkhead.running
    assert not bulkhead._queues


async def test_who_is_cancelled_leaves_its_place() -> None:
    bulkhead, door = Bulkhead(1, waiting=2), Door()
    first, second, third = (asyncio.ensure_future(bulkhead(call(), door)) for _ in range(3))
    await turns()
    second.cancel()
    await turns()
    first.cancel()
    await turns()
    assert door.inside == 1
    third.cancel()
    await asyncio.gather(first, second, third, return_exceptions=True)
    assert not bulkhead.running
    door.open.set()
    assert await bulkhead(call(), door) == "through"


async def test_one_whose_turn_comes_as_it_is_cancelled_passes_it_on() -> None:
    bulkhead, door = Bulkhead(1, waiting=2), Door()
    first, second, third = (asyncio.ensure_future(bulkhead(call(), door)) for _ in range(3))
    await turns()
    first.cancel()
    second.cancel()
    await turns()
    assert door.inside == 1
    door.open.set()
    assert await third == "through"
    await asyncio.gather(first, second, return_exceptions=True)
    assert not bulkhead.running


async def test_nobody_waits_longer_than_the_deadline() -> None:
    async with FakeClock() as clock:
        bulkhead, door = Bulkhead(1, waiting=2), Door()
        first = asyncio.ensure_future(bulkhead(call(), door))
        await turns()
        with shoal.deadline(1.0):
            second = asyncio.ensure_future(bulkhead(call(), door))
        third = asyncio.ensure_future(bulkhead(call(), door))
        await clock.advance(1.1)
        assert second.done()
        assert not third.done()
        await clock.advance(limits.PATIENCE)
        ended = await asyncio.gather(second, third, return_exceptions=True)
        assert all(isinstance(one, shoal.TooManyRequests) for one in ended)
        door.open.set()
        assert await first == "through"
        assert not bulkhead.running


class Numbers:
    """Streams."""

    async def up(self, start: int) -> AsyncIterator[int]:
        for number in range(start, start + 3):
            yield number
            await asyncio.sleep(0)

    async def fail(self, start: int) -> AsyncIterator[int]:
        yield start
        raise shoal.Conflict("no more")


async def test_a_stream_keeps_its_place_until_it_ends() -> None:
    bulkhead = Bulkhead(1)
    async with asyncio.timeout(30), serve(Numbers(), middleware=[bulkhead]) as client:
        numbers = shoal.stub(Numbers, "numbers", client)
        first = numbers.up(1)
        assert await anext(first) == 1
        with pytest.raises(shoal.TooManyRequests):
            await anext(numbers.up(1))
        assert [number async for number in first] == [2, 3]
        with pytest.raises(shoal.Conflict):
            assert [number async for number in numbers.fail(1)]
        assert [number async for number in numbers.up(7)] == [7, 8, 9]
        assert not bulkhead.running


# Breakers


class Flaky:
    """The rest of the chain, which fails when told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.calls = 0

    async def __call__(self, call: shoal.Call) -> str:
        self.calls += 1
        if self.error is not None:
            raise self.error
        return "done"


async def attempt(breaker: Breaker, flaky: Flaky, endpoint: str = "Greeter.Hello") -> Any:
    try:
        return await breaker(call(endpoint, side="client"), flaky)
    except shoal.Error as error:
        return error


async def test_a_breaker_opens_lets_one_through_and_closes() -> None:
    async with FakeClock() as clock:
        breaker, flaky = Breaker(), Flaky()
        flaky.error = shoal.Timeout("too late")
        for _ in range(CALLS):
            assert await attempt(breaker, flaky) is flaky.error
        refused = await attempt(breaker, flaky)
        assert isinstance(refused, shoal.Unavailable)
        assert refused.unsent
        assert refused.retry_after == pytest.approx(FIRST)
        assert flaky.calls == CALLS
        pause = FIRST
        for _ in range(10):
            await clock.advance(pause)
            assert await attempt(breaker, flaky) is flaky.error
            assert await attempt(breaker, flaky) is not flaky.error
            pause = min(2 * pause, LONGEST)
        assert pause == LONGEST
        flaky.error = None
        await clock.advance(LONGEST)
        assert await attempt(breaker, flaky) == "done"
        assert await attempt(breaker, flaky) == "done"
        assert "0 open" in repr(breaker)


async def test_one_bad_endpoint_closes_no_other_and_mistakes_of_callers_none() -> None:
    async with FakeClock():
        breaker, flaky = Breaker(), Flaky()
        flaky.error = shoal.NotFound("nothing there")
        for _ in range(50):
            assert await attempt(breaker, flaky) is flaky.error
        flaky.error = shoal.InternalServerError("broken")
        for _ in range(200):
            await attempt(breaker, flaky)
        assert breaker.refused > 100
        assert await attempt(breaker, flaky, "Greeter.Bye") is flaky.error


def test_a_circuit_counts_what_is_recent() -> None:
    circuit = Circuit(0.0)
    for number in range(CALLS - 1):
        circuit.failed(float(number) / 10)
    circuit.failed(2.5 * WINDOW)  # those before are forgotten
    assert not circuit.is_open
    for _ in range(CALLS):
        circuit.failed(2.6 * WINDOW)
    assert circuit.is_open
    circuit.succeeded(2.6 * WINDOW)  # one that was running says nothing of now
    assert not circuit.allows(2.6 * WINDOW + FIRST / 2)
    assert circuit.allows(2.6 * WINDOW + FIRST)
    assert not circuit.allows(2.6 * WINDOW + FIRST)
    assert circuit.allows(2.6 * WINDOW + 2 * FIRST)  # nobody heard of the first again
    circuit.succeeded(2.6 * WINDOW + 2 * FIRST)
    assert not circuit.is_open


@pytest.mark.parametrize(
    ("error", "blamed"),
    [
        (shoal.InternalServerError(), True),
        (shoal.Timeout(), True),
        (shoal.Unavailable(), True),
        (shoal.Error("a plain error of Go"), False),
        (shoal.TooManyRequests(), False),
        (shoal.Conflict(), False),
        (ValueError(), False),
    ],
)
def test_who_is_to_blame(error: Exception, blamed: bool) -> None:
    assert blames(error) is blamed
