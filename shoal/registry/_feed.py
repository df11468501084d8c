"""Module _feed holds the changes one watcher has not read yet."""

from __future__ import annotations

import asyncio
from collections import deque

from shoal.errors import Error, Unavailable
from shoal.registry import Change


class Feed:
    """A bounded queue of changes; what does not fit ends it with Unavailable, never silently."""

    def __init__(self, limit: int = 4096) -> None:
        """Hold changes up to `limit`, in units of the weight they are put with."""
        self._limit = limit
        self._changes: deque[tuple[Change, int]] = deque()
        self._weight = 0
        self._ended = False
        self._error: Error | None = None
        self._wake: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"Feed({len(self._changes)} unread{', ended' if self._ended else ''})"

    def put(self, change: Change, weight: int = 1) -> None:
        """Add a change; one that does not fit is lost, and the reader told so."""
        if self._ended:
            return
        if self._weight + weight > self._limit:
            self.end(Unavailable("the watch was read too slowly and has missed changes"))
            return
        self._changes.append((change, weight))
        self._weight += weight
        self._ring()

    def end(self, error: Error | None = None) -> None:
        """Let `next` raise this error, or else return None, once the changes are read."""
        if not self._ended:
            self._ended, self._error = True, error
            self._ring()

    async def next(self) -> Change | None:
        """Return the next change, None at the end."""
        while not self._changes:
            if self._error is not None:
                raise self._error
            if self._ended:
                return None
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        change, weight = self._changes.popleft()
        self._weight -= weight
        return change

    def _ring(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
