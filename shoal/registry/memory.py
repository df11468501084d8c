"""Module memory is a registry for the services of one process, and for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Literal

from shoal.registry import Change, Record, Registry
from shoal.registry._feed import Feed
from shoal.registry._records import checked, copied, merge


class MemoryRegistry(Registry):
    """Keeps records in memory; services that shall find each other are given the same object."""

    def __init__(self, address: str = "") -> None:
        """Ignore the address: there is nothing to reach."""
        self._records: dict[tuple[str, str], Record] = {}  # by name and node, each with one node
        self._expiries: dict[tuple[str, str], asyncio.TimerHandle] = {}
        self._watches: dict[Feed, str | None] = {}

    def __repr__(self) -> str:
        names = sorted({name for name, _ in self._records})
        return f"MemoryRegistry({names}, nodes={len(self._records)}, watches={len(self._watches)})"

    async def register(self, record: Record, *, ttl: float | None = None) -> None:
        record = checked(record)
        for node in record.nodes:
            key, one = (record.name, node.id), replace(record, nodes=(node,))
            known = self._records.get(key)
            self._records[key] = one
            self._expire(key, ttl)
            if known != one:
                self._tell("update" if known else "create", one)

    async def deregister(self, record: Record) -> None:
        for node in record.nodes:
            self._remove((record.name, node.id))

    async def get(self, name: str) -> list[Record]:
        return merge(copied(one) for one in self._records.values() if one.name == name)

    async def services(self) -> list[str]:
        return sorted({name for name, _ in self._records})

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
        for key in list(self._records):
            self._remove(key)
        for feed in self._watches:
            feed.end()
        self._watches.clear()

    def _expire(self, key: tuple[str, str], ttl: float | None) -> None:
        if (timer := self._expiries.pop(key, None)) is not None:
            timer.cancel()
        if ttl is not None:
            self._expiries[key] = asyncio.get_running_loop().call_later(ttl, self._remove, key)

    def _remove(self, key: tuple[str, str]) -> None:
        self._expire(key, None)
        if (gone := self._records.pop(key, None)) is not None:
            self._tell("delete", gone)

    def _tell(self, action: Literal["create", "update", "delete"], record: Record) -> None:
        for feed, name in self._watches.items():
            if name in (None, record.name):
                feed.put(Change(action, copied(record)))
