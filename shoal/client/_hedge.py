"""Module _hedge runs a second attempt of a call beside a first one that is unusually slow."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from shoal.health import Gauge

SAMPLES = 256  # last calls of an endpoint that are looked at
FEW = 20  # so many must have ended before any is called slow
EVERY = 8  # calls between two looks
SLOW = 0.95  # the part of the calls that is faster than one that is called slow
MARGIN = 1.1  # of that time
COARSE = 0.001  # seconds the loop's clock may be late
MOST = 1024  # endpoints

Key = tuple[str, str]
"""Service and endpoint."""


class _Times:
    """How long the last calls of an endpoint took, in seconds."""

    __slots__ = ("_count", "last", "slow")

    def __init__(self) -> None:
        self.last: deque[float] = deque(maxlen=SAMPLES)
        self.slow: float | None = None
        self._count = 0

    def add(self, seconds: float) -> None:
        self.last.append(seconds)
        self._count += 1
        if len(self.last) >= FEW and (self.slow is None or self._count % EVERY == 0):
            self.slow = sorted(self.last)[int(SLOW * len(self.last))]


class Hedges:
    """Knows how slow is slow for each endpoint that may be called twice.

    `started` are second attempts so far, `won` those that were faster than the first.
    """

    def __init__(self, may: Callable[[], bool]) -> None:
        self.started = 0
        self.won = 0
        self._may = may
        self._times: dict[Key, _Times] = {}

    def __repr__(self) -> str:
        return f"Hedges({len(self._times)} endpoints, {self.started} started, {self.won} won)"

    def gauges(self) -> Iterator[Gauge]:
        """Yield how many second attempts there were, and how many of them were faster."""
        yield Gauge("client_hedges", self.started)
        yield Gauge("client_hedges_won", self.won)

    def slow(self, key: Key) -> float | None:
        """Return the seconds only one in twenty calls takes, None if that is not known yet."""
        times = self._times.get(key)
        return None if times is None else times.slow

    async def run(
        self,
        key: Key,
        first: Coroutine[Any, Any, Any],
        second: Callable[[], Coroutine[Any, Any, Any]],
    ) -> Any:
        """Return the first good reply of one attempt, or of two if the first is slow.

        The other one is cancelled. Raises what the first attempt raised if both fail.
        """
        loop = asyncio.get_running_loop()
        begun = loop.time()
        tasks = [loop.create_task(first)]
        try:
            slow = self.slow(key)
            # Just as slow is not slower, and the clock may be a coarse one.
            wait = None if slow is None else MARGIN * slow + COARSE
            done, _ = await asyncio.wait(tasks, timeout=wait)
            if not done and self._may():
                self.started += 1
                tasks.append(loop.create_task(second()))
            winner = await _winner(tasks)
            if winner is not tasks[0] and winner.exception() is None:
                self.won += 1
            if winner.exception() is None:
                self._add(key, loop.time() - begun)
            return winner.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _add(self, key: Key, seconds: float) -> None:
        times = self._times.get(key)
        if times is None:
            if len(self._times) >= MOST:
                del self._times[next(iter(self._times))]
            times = self._times[key] = _Times()
        times.add(seconds)


async def _winner(tasks: list[asyncio.Task[Any]]) -> asyncio.Task[Any]:
    """Return the first task that ends well, else the first of them."""
    pending = set(tasks)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            if not task.cancelled() and task.exception() is None:
                return task
    return tasks[0]
