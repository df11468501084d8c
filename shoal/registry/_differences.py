"""Module _differences tells what changed between two looks at the same services."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from shoal.errors import Error
from shoal.registry import Change, Node, Record
from shoal.registry._feed import Feed
from shoal.registry._records import copied, merge


class Looks:
    """What one watcher saw, look by look; from the second one on it is told what is different."""

    def __init__(self, name: str | None) -> None:
        self.name = name
        self.feed = Feed()
        self.began = asyncio.Event()
        """Set when changes from now on are told, or none will ever be."""
        self.known: list[Record] = []

    def add(self, found: list[Record]) -> None:
        """Tell what is different from the look before."""
        if self.began.is_set():
            for change in differences(self.known, found):
                self.feed.put(change)
        self.known = found
        self.began.set()

    def end(self, error: Error | None = None) -> None:
        """End the watch, with an error if there was nothing to begin with."""
        self.feed.end(error)
        self.began.set()


def differences(before: Iterable[Record], after: Iterable[Record]) -> Iterator[Change]:
    """Yield the changes from one look to the next, what is gone first.

    A node that moved to another version is thus told gone before it is told of again.
    """
    old = {(record.name, record.version): record for record in before}
    new = {(record.name, record.version): record for record in after}
    for key, record in old.items():
        left = {node.id for node in new[key].nodes} if key in new else set()
        if gone := tuple(node for node in record.nodes if node.id not in left):
            yield _change("delete", record, gone)
    for key, record in new.items():
        known = {node.id: node for node in old[key].nodes} if key in old else {}
        if created := tuple(node for node in record.nodes if node.id not in known):
            yield _change("create", record, created)
        same = key in old and old[key].endpoints == record.endpoints
        changed = tuple(
            node
            for node in record.nodes
            if node.id in known and (not same or known[node.id] != node)
        )
        if changed:
            yield _change("update", record, changed)


def with_missing(before: Iterable[Record], after: Sequence[Record]) -> list[Record]:
    """Return the records of the second look and the nodes that are only in the first."""
    here = {(record.name, node.id) for record in after for node in record.nodes}
    names: dict[str, list[Record]] = {}
    for record in before:
        missing = tuple(node for node in record.nodes if (record.name, node.id) not in here)
        if missing:
            names.setdefault(record.name, []).append(replace(record, nodes=missing))
    for record in after:
        names.setdefault(record.name, []).append(record)
    return [record for records in names.values() for record in merge(records)]


def _change(action: str, record: Record, nodes: tuple[Node, ...]) -> Change:
    return Change(action, copied(replace(record, nodes=nodes)))  # type: ignore[arg-type]  # one of the three
