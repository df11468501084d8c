"""Package deadlines ends what takes too long, with one coarse timer for all that runs in a loop."""

from __future__ import annotations

import asyncio
import math
import os
import sys
import weakref
from threading import get_ident
from types import TracebackType
from typing import TYPE_CHECKING, Any

TICK = 0.005  # seconds; a deadline fires up to this late, never early
OUTSIDE = (
    "this client or server belongs to the event loop that used it first, and is used in another,"
    " or outside any task: each loop needs one of its own"
)

# The one thing a process has one of: a fork copies all of it, and asks nobody.
_alive: weakref.WeakSet[Deadlines] = weakref.WeakSet()


if TYPE_CHECKING or sys.version_info >= (3, 12):
    _current_task = asyncio.current_task
else:  # what 3.11's does when it is given the loop: a function of Python's for a look-up
    _current_task = asyncio.tasks._current_tasks.get


class Deadlines:
    """Limits for blocks of code in tasks of one event loop.

    `asyncio.timeout` makes and cancels a timer of the loop for every block, which costs a third
    of a small call; here a block is put into a set and taken out again, and one timer is set for
    the earliest deadline that was seen. When it fires, most blocks have long ended.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._running: set[Limit] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._next = math.inf
        self.thread = get_ident()
        """Of the loop; another one's sees the tasks of this loop too."""
        _alive.add(self)

    def until(self, when: float) -> Limit:
        """Return a context manager that cancels its block at loop time `when`.

        The block then raises TimeoutError if it lets the cancellation pass.
        """
        return Limit(self, when)

    def close(self) -> None:
        """Stop the timer; blocks that still run are no longer limited."""
        self._running.clear()
        self._next = math.inf
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _schedule(self, when: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next = when
        self._timer = self.loop.call_at(when, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._next = math.inf
        now = self.loop.time()
        for limit in [limit for limit in self._running if limit.when <= now]:
            self._running.discard(limit)
            limit.expire()
        if self._running:
            first = min(limit.when for limit in self._running)
            self._schedule(max(first, now + TICK))


class Limit:
    """A block with a deadline; `expired` tells whether it fired. It can be used again.

    `begin` and `end` are cheaper than `with`, for who tells by `end` what a cancellation means.
    """

    __slots__ = ("_cancelling", "_task", "expired", "owner", "when")

    def __init__(self, owner: Deadlines, when: float) -> None:
        self.owner = owner
        self.when = when
        self.expired = False
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0

    def __enter__(self) -> Limit:
        self.begin()
        return self

    def begin(self) -> None:
        """Limit what the running task does from now on, until `end` is called.

        Raises RuntimeError outside the loop and outside any task.
        """
        owner = self.owner
        # With the loop given, 3.11 need not ask which one runs, which is a system call; but what
        # runs in this loop is told in other threads too.
        task = _current_task(owner.loop)
        if task is None or owner.thread != get_ident():
            owner.loop.is_closed()  # tells who was forked
            raise RuntimeError(OUTSIDE)
        self._task = task
        self._cancelling = task.cancelling()
        self.expired = False
        owner._running.add(self)
        if self.when < owner._next:
            owner._schedule(self.when)

    def expire(self) -> None:
        """Cancel the block."""
        self.expired = True
        if self._task is not None:
            self._task.cancel()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.end() and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def end(self) -> bool:
        """Limit nothing any more; whether it is only this limit that cancels the task."""
        self.owner._running.discard(self)
        if not self.expired or self._task is None:
            return False
        task, self._task = self._task, None
        return task.uncancel() <= self._cancelling


class Forked:
    """Takes the place of a loop in a process that was forked while the loop was open.

    The loop's connections are the parent's too: whatever is sent would end up between its bytes.
    """

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(
            "this process was forked from one that used this client or server, and cannot use it"
            " too: make one of its own after the fork, or start the process by spawn"
        )


def _forked() -> None:
    for deadlines in _alive:
        if not deadlines.loop.is_closed():
            deadlines.loop = Forked()  # type: ignore[assignment]  # it is none, and says so


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
