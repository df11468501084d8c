"""Module memory is a registry for the services of one process, and for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

from shoal.registry import Change, Record, Registry
from shoal.registry._feed import Feed
from shoal.registry._records import checked, copied, merge


@dataclass(slots=True)
class _Entry:
    record: Record  # with the one node
    expiry: asyncio.TimerHandle | None = None


class MemoryRegistry(Registry):
    """Keeps records in memory; services that shall find each other are given the same object."""

    def __init__(self, address: str = "") -> None:
        """Ignore the address: there is nothing to reach."""
        self._entries: dict[tuple[str, str], _Entry] = {}
        self._watches: dict[Feed, str | None] = {}

    def __repr__(self) -> str:
        names = sorted({name for name, _ in self._entries})
        return f"MemoryRegistry({names}, nodes={len(self._entries)}, watches={len(self._watches)})"

    async def register(self, record: Record, *, ttl: float | None = None) -> None:
        record = checked(record)
        for node in record.nodes:
            key, one = (record.name, node.id), replace(record, nodes=(node,))
            known = self._forget(key)
            expiry = None
            if ttl is not None:
                expiry = asyncio.get_running_loop().call_later(ttl, self._remove, key)
            self._entries[key] = _Entry(one, expiry)
            if known is None:
                self._tell(Change("create", one))
            elif known != one:
                self._tell(Change("update", one))

    async def deregister(self, record: Record) -> None:
        for node in record.nodes:
            self._remove((record.name, node.id))

    async def get(self, name: str) -> list[Record]:
        return merge(copied(e.record) for (known, _), e in self._entries.items() if known == name)

    async def services(self) -> list[str]:
        return sorted({name for name, _ in self._entries})

    async def watch(self, name: str | None = None) -> AsyncIterator[Change]:
        feed = Feed()
        self._watches[feed] = name
        try:
            while change := await feed.next():
                yield change
        finally:
            self._watches.pop(feed, None)

    async def close(self) -> None:
        """Forget everything: all services that were given this object are one side."""
        for key in list(self._entries):
            self._remove(key)
        for feed in list(self._watches):
            feed.end()

    def _remove(self, key: tuple[str, str]) -> None:
        gone = self._forget(key)
        if gone is not None:
            self._tell(Change("delete", gone))

    def _forget(self, key: tuple[str, str]) -> Record | None:
        entry = self._entries.pop(key, None)
        if entry is not None and entry.expiry is not None:
            entry.expiry.cancel()
        return entry.record if entry is not None else None

    def _tell(self, change: Change) -> None:
        for feed, name in self._watches.items():
            if name is None or name == change.record.name:
                feed.put(replace(change, record=copied(change.record)))
