"""Package deadlines ends what takes too long, with one coarse timer for all that runs in a loop."""

from __future__ import annotations

import asyncio
from types import TracebackType

TICK = 0.005  # seconds; a deadline fires up to this late, never early


class Deadlines:
    """Limits for blocks of code in tasks of one event loop.

    `asyncio.timeout` makes and cancels a timer of the loop for every block, which costs a third
    of a small call; here a block is put into the bucket of its tick and taken out again, and one
    timer runs while any bucket is filled.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._buckets: dict[int, set[Limit]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._next = 0

    def until(self, when: float) -> Limit:
        """Return a context manager that cancels its block at loop time `when`.

        The block then raises TimeoutError if it lets the cancellation pass.
        """
        return Limit(self, when)

    def close(self) -> None:
        """Stop the timer; blocks that still run are no longer limited."""
        self._buckets.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _add(self, limit: Limit, tick: int) -> None:
        bucket = self._buckets.get(tick)
        if bucket is None:
            self._buckets[tick] = {limit}
            if self._timer is None or tick < self._next:
                self._schedule(tick)
        else:
            bucket.add(limit)

    def _schedule(self, tick: int) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = tick
        self._timer = self.loop.call_at(tick * TICK, self._fire)

    def _fire(self) -> None:
        self._timer = None
        now = int(self.loop.time() / TICK)
        for tick in [tick for tick in self._buckets if tick <= now]:
            for limit in self._buckets.pop(tick):
                limit.expire()
        if self._buckets:
            self._schedule(min(self._buckets))


class Limit:
    """A block with a deadline; `expired` tells whether it fired."""

    __slots__ = ("_cancelling", "_owner", "_task", "_tick", "expired")

    def __init__(self, owner: Deadlines, when: float) -> None:
        self._owner = owner
        self._tick = int(when / TICK) + 1
        self.expired = False

    def __enter__(self) -> Limit:
        # With the loop given, 3.11 need not ask which one runs, which is a system call.
        task = asyncio.current_task(self._owner.loop)
        if task is None:
            raise RuntimeError(
                "this belongs to one event loop, and is used outside it or outside any task of it"
            )
        self._task = task
        self._cancelling = task.cancelling()
        self._owner._add(self, self._tick)
        return self

    def expire(self) -> None:
        """Cancel the block."""
        self.expired = True
        self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self.expired:
            bucket = self._owner._buckets.get(self._tick)
            if bucket is not None:
                bucket.discard(self)
                if not bucket:
                    del self._owner._buckets[self._tick]
        elif self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
