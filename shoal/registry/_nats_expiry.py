"""Module _nats_expiry remembers until when nodes are taken to live."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shoal.registry import Record

LIMIT = 65536  # nodes; those beyond are not watched over

Key = tuple[str, str]
"""A service's name and a node's id."""


class Expiries:
    """Timers by node, each started again when the node is heard of."""

    def __init__(self, expired: Callable[[Key, Record | None], object]) -> None:
        """Call `expired` with the node and the record that was set with it."""
        self._expired = expired
        self._timers: dict[Key, asyncio.TimerHandle] = {}

    def __repr__(self) -> str:
        return f"Expiries({len(self._timers)})"

    def set(self, key: Key, ttl: float | None, record: Record | None = None) -> None:
        """Let a node live for so many seconds from now on; for ever with None."""
        if (timer := self._timers.pop(key, None)) is not None:
            timer.cancel()
        if ttl is not None and len(self._timers) < LIMIT:
            loop = asyncio.get_running_loop()
            self._timers[key] = loop.call_later(ttl, self._fire, key, record)

    def clear(self) -> None:
        """Forget all of them."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _fire(self, key: Key, record: Record | None) -> None:
        del self._timers[key]
        self._expired(key, record)
