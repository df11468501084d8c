"""Module _threads runs handlers that are no coroutines."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from shoal.deadlines import Deadlines
from shoal.server._admission import Line


class Threads:
    """A bounded number of threads; requests wait in `line` for one that is free."""

    def __init__(self, name: str, count: int, most: int, limits: Deadlines) -> None:
        self.line = Line(name, self._room, most, limits, depth=count)
        self.busy = 0
        """Functions that run or wait for a thread."""
        self._count = count
        self._loop = limits.loop
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(count, f"shoal-{name}")

    def __repr__(self) -> str:
        return f"Threads({self.busy} of {self._count} busy, {self.line!r})"

    @property
    def full(self) -> bool:
        """Whether a request has to wait for a thread."""
        return self.busy >= self._count or bool(self.line.waiting)

    async def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function in a thread, with the context of the caller."""
        run = functools.partial(contextvars.copy_context().run, function, *arguments)
        future = self._pool.submit(run)
        with self._lock:
            self.busy += 1
        future.add_done_callback(self._done)
        return await asyncio.wrap_future(future, loop=self._loop)

    def close(self) -> None:
        """Run nothing more; what runs in a thread cannot be stopped."""
        self.line.close()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done(self, future: Future[Any]) -> None:
        """Note that a thread is free: called in that thread, or where a function is cancelled."""
        with self._lock:
            self.busy -= 1
        if self.line.waiting:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self.line.advance)

    def _room(self) -> int:
        return self._count - self.busy
