"""One timer ends what takes too long, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
import uvloop

from shoal.deadlines import TICK, Deadlines, Limit
from shoal.testing.clock import FakeClock


def deadlines() -> Deadlines:
    return Deadlines(asyncio.get_running_loop())


async def test_a_block_that_takes_too_long() -> None:
    async with FakeClock() as clock:
        limits = deadlines()

        async def block() -> float:
            with pytest.raises(TimeoutError), limits.until(begun + 1.0):
                await asyncio.sleep(10)
            return clock.now - begun

        begun = clock.now
        task = asyncio.create_task(block())
        await clock.advance(5)
        assert 1.0 <= await task <= 1.0 + 2 * TICK


async def test_a_block_that_is_done_in_time() -> None:
    async with FakeClock() as clock:
        limits = deadlines()
        with limits.until(clock.now + 1) as limit:
            await asyncio.sleep(0)
        assert not limit.expired
        await clock.advance(5)
        assert not limit.expired
        assert not limits._running


async def test_many_blocks_have_one_timer() -> None:
    async with FakeClock() as clock:
        limits = deadlines()
        loop = asyncio.get_running_loop()
        ended: list[int] = []

        async def block(number: int) -> None:
            try:
                with limits.until(begun + number % 10 + 1):
                    await asyncio.sleep(100)
            except TimeoutError:
                ended.append(number % 10)

        begun = clock.now
        tasks = [asyncio.create_task(block(number)) for number in range(200)]
        await asyncio.sleep(0)
        timers = [t for t in loop._scheduled if not t.cancelled()]  # type: ignore[attr-defined]  # asyncio's own
        assert len(timers) == 200 + 1  # their sleeps, and one
        await clock.advance(20)
        await asyncio.gather(*tasks)
        assert ended == sorted(ended)
        assert len(ended) == 200


async def test_a_deadline_that_is_over_already() -> None:
    limits = deadlines()
    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(5):
            with limits.until(loop.time() - 1):
                await asyncio.sleep(100)


async def test_a_block_that_waits_for_nothing_is_not_ended() -> None:
    limits = deadlines()
    with limits.until(asyncio.get_running_loop().time() - 1) as limit:
        pass
    await asyncio.sleep(2 * TICK)
    assert not limit.expired


async def test_an_earlier_deadline_after_a_later_one() -> None:
    async with FakeClock() as clock:
        limits = deadlines()
        begun = clock.now

        async def block(seconds: float) -> float:
            try:
                with limits.until(begun + seconds):
                    await asyncio.sleep(100)
            except TimeoutError:
                pass
            return clock.now - begun

        tasks = [asyncio.create_task(block(seconds)) for seconds in (9, 3, 6, 1)]
        await clock.advance(10)
        for seconds, task in zip((9, 3, 6, 1), tasks, strict=True):
            assert seconds <= await task <= seconds + 2 * TICK


async def test_one_inside_another() -> None:
    async with FakeClock() as clock:
        limits = deadlines()
        seen: list[str] = []

        async def block() -> None:
            begun = clock.now
            with limits.until(begun + 2) as outer:
                inner = limits.until(begun + 1)
                try:
                    with inner:
                        await asyncio.sleep(100)
                except TimeoutError:
                    seen.append(f"inner {inner.expired} {outer.expired}")
                with pytest.raises(asyncio.CancelledError):
                    await asyncio.sleep(100)
                seen.append(f"outer {outer.expired}")
                raise asyncio.CancelledError

        task = asyncio.create_task(block())
        await clock.advance(10)
        with pytest.raises(TimeoutError):
            await task
        assert seen == ["inner True False", "outer True"]


async def test_inside_a_timeout_of_asyncio_and_around_one() -> None:
    async with FakeClock() as clock:
        limits = deadlines()

        async def around() -> str:
            try:
                async with asyncio.timeout(1):
                    with limits.until(clock.now + 5):
                        await asyncio.sleep(100)
            except TimeoutError:
                return "asyncio's"
            return "none"

        async def inside() -> str:
            try:
                async with asyncio.timeout(5):
                    try:
                        with limits.until(clock.now + 1):
                            await asyncio.sleep(100)
                    except TimeoutError:
                        return "ours"
            except TimeoutError:
                return "asyncio's"
            return "none"

        tasks = [asyncio.create_task(around()), asyncio.create_task(inside())]
        await clock.advance(20)
        assert [await task for task in tasks] == ["asyncio's", "ours"]


async def test_cancelling_from_outside_stays_a_cancellation() -> None:
    async with FakeClock() as clock:
        limits = deadlines()

        async def block() -> None:
            with limits.until(clock.now + 5):
                await asyncio.sleep(100)

        task = asyncio.create_task(block())
        await clock.advance(1)
        task.cancel()
        await clock.advance(10)
        assert task.cancelled()
        assert not limits._running


@pytest.mark.parametrize("first", ["late", "cancelled"])
async def test_cancelled_from_outside_and_late_at_once(first: str) -> None:
    limits = deadlines()
    running: list[Limit] = []

    async def block() -> None:
        with limits.until(asyncio.get_running_loop().time() + 100) as limit:
            running.append(limit)
            await asyncio.sleep(100)

    task = asyncio.create_task(block())
    await asyncio.sleep(0)
    steps: list[Callable[[], object]] = [running[0].expire, task.cancel]
    for step in steps if first == "late" else reversed(steps):
        step()
    with pytest.raises(asyncio.CancelledError):
        await task
    limits.close()


async def test_an_error_of_the_block_passes() -> None:
    async with FakeClock() as clock:
        limits = deadlines()
        with pytest.raises(KeyError), limits.until(clock.now + 1):
            raise KeyError("x")
        assert not limits._running

        async def late() -> None:
            with limits.until(clock.now + 1):
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError:
                    raise KeyError("instead") from None

        task = asyncio.create_task(late())
        await clock.advance(5)
        with pytest.raises(KeyError, match="instead"):
            await task
        assert task.cancelling() == 0


async def test_a_block_that_swallows_the_cancellation() -> None:
    async with FakeClock() as clock:
        limits = deadlines()

        async def block() -> str:
            with limits.until(clock.now + 1) as limit:
                with suppress(asyncio.CancelledError):
                    await asyncio.sleep(100)
            await asyncio.sleep(0)  # nothing is left of the cancellation
            return f"done {limit.expired}"

        task = asyncio.create_task(block())
        await clock.advance(5)
        assert await task == "done True"


async def test_closing_ends_no_block() -> None:
    async with FakeClock() as clock:
        limits = deadlines()

        async def block() -> str:
            with limits.until(clock.now + 1):
                await asyncio.sleep(3)
            return "done"

        task = asyncio.create_task(block())
        await clock.advance(0.5)
        limits.close()
        limits.close()
        await clock.advance(5)
        assert await task == "done"


async def test_outside_a_task() -> None:
    limits = deadlines()
    failures: list[BaseException] = []

    def callback() -> None:
        try:
            with limits.until(1.0):
                pass
        except RuntimeError as error:
            failures.append(error)

    asyncio.get_running_loop().call_soon(callback)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(failures) == 1


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_real_time_on_both_loops(factory: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        limits = deadlines()
        for seconds in (0.0, 0.001, 0.02):
            when = loop.time() + seconds
            limit = limits.until(when)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(10):
                    with limit:
                        await asyncio.sleep(5)
            assert limit.expired
            assert loop.time() >= when - 0.002  # uvloop counts milliseconds
        limits.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main())
