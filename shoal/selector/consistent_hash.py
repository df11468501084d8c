"""Module consistent_hash is the selector that gives calls with the same key the same node."""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Unpack

from shoal import context
from shoal.registry import Registry
from shoal.selector import Load, Strategy
from shoal.selector._cached import CachedSelector, Settings
from shoal.selector._pool import Loads
from shoal.selector.p2c import better_of_two

# Every node has 8 points on the ring and every key 16; the node closest behind any of the key's
# points gets it. So few points even out as well as hundreds per node would (multi-probe
# consistent hashing, Appleton and O'Reilly 2015), and the ring is small.
PROBES = 16
_points = struct.Struct("<8Q").unpack
_key = struct.Struct("<2Q").unpack
_END = 1 << 64


def consistent_hash(key: str) -> Strategy:
    """Return a Strategy that gives all calls with this key the same node.

    When a node comes or goes, only the keys that it gets or had move. Another attempt of a call
    goes to the node that would have the key without the first.
    """
    return _ByKey(key)


class ConsistentHashSelector(CachedSelector):
    """Gives calls that have the same value in their metadata the same node.

    `metadata` is the name to look at; a call without it goes to the better of two nodes. The key
    can be given with a call as well: `strategy=consistent_hash("user-7")`.
    """

    def __init__(
        self, registry: Registry, *, metadata: str = "Hash-Key", **settings: Unpack[Settings]
    ) -> None:
        super().__init__(registry, self._choose, **settings)
        self._metadata = metadata

    def _choose(self, service: str, loads: Sequence[Load]) -> Load:
        running = context.current.get()
        key = running.metadata.get(self._metadata) or running.incoming.get(self._metadata)
        if key:
            return _ring(loads).get(key)
        return better_of_two(loads, self._rng.random)


class _ByKey:
    __slots__ = ("_key",)

    def __init__(self, key: str) -> None:
        self._key = key

    def __repr__(self) -> str:
        return f"consistent_hash({self._key!r})"

    def __call__(self, service: str, loads: Sequence[Load]) -> Load:
        return _ring(loads).get(self._key)


class _Ring:
    __slots__ = ("_owners", "_points")

    def __init__(self, loads: Sequence[Load]) -> None:
        self._owners = {point: load for load in loads for point in node_points(load.node.id)}
        self._points = sorted(self._owners)

    def get(self, key: str) -> Load:
        points = self._points
        count = len(points)
        first, step = _key(blake2b(key.encode(), digest_size=16).digest())
        best, nearest = points[0], _END
        for probe in range(PROBES):
            place = (first + probe * step) % _END
            at = bisect_left(points, place)
            point = points[at] if at < count else points[0]
            distance = (point - place) % _END
            if distance < nearest:
                best, nearest = point, distance
        return self._owners[best]


def _ring(loads: Sequence[Load]) -> _Ring:
    if not isinstance(loads, Loads):
        return _Ring(loads)
    ring = loads.memo.get(_Ring)
    if ring is None:
        ring = loads.memo[_Ring] = _Ring(loads)
    return ring


@lru_cache(maxsize=16384)
def node_points(id: str) -> tuple[int, ...]:
    """Return the places of a node on the ring of 2**64: the same in every process."""
    return _points(blake2b(id.encode()).digest())
