"""Module clock is a clock that a test moves by hand."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Self

LEAST = 20  # rounds of the loop before time moves on, in which it looks at its sockets
MOST = 10_000  # rounds, for a task that never waits


class FakeClock:
    """Lets time stand still for everything that waits in the running event loop.

    `async with FakeClock() as clock: ... await clock.advance(30)`. Deadlines, intervals, backoff
    and `asyncio.sleep` follow it, because all of them ask the loop for the time. It works with
    asyncio's own event loops; uvloop keeps its time to itself.
    """

    def __init__(self) -> None:
        self._now = 0.0

    @property
    def now(self) -> float:
        """The loop's time in seconds."""
        return self._now

    async def advance(self, seconds: float) -> None:
        """Move time on, running what becomes due in the order in which it does."""
        if seconds < 0:
            raise ValueError("time does not go back")
        loop = asyncio.get_running_loop()
        end = self._now + seconds
        await _settle()
        while (due := _next_timer(loop)) is not None and due <= end:
            self._now = max(self._now, due)
            await _settle()
        self._now = max(self._now, end)
        await _settle()

    def block(self, seconds: float) -> None:
        """Let time pass in which the loop runs nothing, as code does that computes for so long."""
        self._now += seconds

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Let time pass by itself in the block, as fast as things get done."""
        moving = asyncio.get_running_loop().create_task(self._run())
        try:
            yield
        finally:
            moving.cancel()
            await asyncio.gather(moving, return_exceptions=True)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await _settle()
            if (due := _next_timer(loop)) is not None:
                self._now = max(self._now, due)

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        if not hasattr(loop, "_scheduled"):
            raise RuntimeError(
                f"{type(loop).__module__} keeps its time to itself: run this test on asyncio's loop"
            )
        # A whole number, so that what is rounded is rounded alike in every run.
        self._now = float(math.ceil(loop.time()))
        loop.time = lambda: self._now  # type: ignore[method-assign]  # that is the whole trick
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        del asyncio.get_running_loop().time


def _next_timer(loop: asyncio.AbstractEventLoop) -> float | None:
    timers: list[asyncio.TimerHandle] = loop._scheduled  # type: ignore[attr-defined]  # BaseEventLoop's
    return min((timer.when() for timer in timers if not timer.cancelled()), default=None)


async def _settle() -> None:
    """Let everything run that can run now, and what that makes ready."""
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]  # BaseEventLoop's
    for rounds in range(MOST):
        await asyncio.sleep(0)
        if rounds >= LEAST and not ready:
            return
