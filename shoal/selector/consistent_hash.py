"""Module consistent_hash is the selector that gives calls with the same key the same node."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Unpack

from shoal import context
from shoal.registry import Registry
from shoal.selector import Load, Strategy
from shoal.selector._cached import CachedSelector, Settings
from shoal.selector._pool import Follower, Loads
from shoal.selector.p2c import better_of_two

# Every node has 8 points on the ring and every key 16; the node closest behind any of the key's
# points gets it. So few points even out as well as hundreds per node would (multi-probe
# consistent hashing, Appleton and O'Reilly 2015), and the ring is small.
PROBES = 16
CROWD = 2  # points in a part of the ring, more or less
_points = struct.Struct("<8Q").unpack
_key = struct.Struct("<2Q").unpack
_END = 1 << 64
_LAST = _END - 1


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
        self._better = better_of_two(self._rng.random)

    def _choose(self, service: str, loads: Sequence[Load]) -> Load:
        running = context.current.get()
        key = running.metadata.get(self._metadata) or running.incoming.get(self._metadata)
        if key:
            return _ring(loads).get(key)
        return self._better(service, loads)


class _ByKey:
    __slots__ = ("_key",)

    def __init__(self, key: str) -> None:
        self._key = key

    def __repr__(self) -> str:
        return f"consistent_hash({self._key!r})"

    def __call__(self, service: str, loads: Sequence[Load]) -> Load:
        return _ring(loads).get(self._key)


class _Ring(Follower):
    """The points of all nodes in equal parts of the circle, a few in each.

    So to find one, and to take in that a node came or went, is as quick with many nodes as with
    few. Every part ends with the point that follows it.
    """

    def __init__(self, loads: Sequence[Load]) -> None:
        self._owners = {point: load for load in loads for point in node_points(load.node.id)}
        self._count = len(loads)
        bits = (len(self._owners) // CROWD).bit_length()
        self._shift = 64 - bits
        parts: list[list[int]] = [[] for _ in range(1 << bits)]
        points = sorted(self._owners)
        for point in points:
            parts[point >> self._shift].append(point)
        self._parts: list[tuple[int, ...]] = [()] * len(parts)
        following = points[0]
        for number in reversed(range(len(parts))):
            self._parts[number] = (*parts[number], following)
            following = self._parts[number][0]

    def get(self, key: str) -> Load:
        """Return the node behind one of the key's points that is the closest."""
        parts, shift = self._parts, self._shift
        first, step = _key(blake2b(key.encode(), digest_size=16).digest())
        best, nearest = 0, _END
        for probe in range(PROBES):
            place = (first + probe * step) & _LAST
            point = 0
            for point in parts[place >> shift]:  # the last one follows the part
                if point >= place:
                    break
            distance = (point - place) & _LAST
            if distance < nearest:
                best, nearest = point, distance
        return self._owners[best]

    def follow(self, added: Iterable[Load], gone: Iterable[Load], count: int) -> bool:
        for load in gone:
            mine = [one for one in node_points(load.node.id) if self._owners.get(one) is load]
            self._count -= bool(mine)
            for point in mine:
                del self._owners[point]
                own = [one for one in self._own(point) if one != point]
                self._put(point >> self._shift, own)
        for load in added:
            points = node_points(load.node.id)
            self._count += points[0] not in self._owners
            for point in points:
                if point not in self._owners:
                    self._put(point >> self._shift, sorted([*self._own(point), point]))
                self._owners[point] = load
        crowd = len(self._owners) / len(self._parts)
        return self._count == count and CROWD / 4 < crowd < CROWD * 4

    def _own(self, point: int) -> tuple[int, ...]:
        return self._parts[point >> self._shift][:-1]

    def _put(self, number: int, own: Iterable[int]) -> None:
        """Change a part, and what the parts before it end with."""
        parts = self._parts
        parts[number] = (*own, parts[(number + 1) % len(parts)][0])
        while True:
            first = parts[number][0]
            number = (number - 1) % len(parts)
            before = parts[number]
            if before[-1] == first:
                return
            parts[number] = (*before[:-1], first)
            if len(before) > 1:
                return


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
