"""Module round_robin is the selector that gives one node after the other."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from typing import Unpack

from shoal.registry import Registry
from shoal.selector import Load
from shoal.selector._cached import CachedSelector, Settings
from shoal.selector._pool import Filters, Loads, node_id

LIMIT = 4096  # turns remembered


class RoundRobin:
    """A Strategy that gives the nodes in turn, by their ids; keep one object for many calls.

    Whoever was given last is remembered by its id, so the turn goes on when nodes come and go.
    Calls with other filters have a turn of their own. It begins anywhere, lest all clients of a
    fleet begin with the same node.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random(random.random())
        self._last: dict[tuple[str, Filters], str] = {}

    def __repr__(self) -> str:
        return f"RoundRobin({len(self._last)} turns)"

    def __call__(self, service: str, loads: Sequence[Load]) -> Load:
        filters: Filters = None
        if isinstance(loads, Loads):
            filters = loads.filters
        else:
            loads = sorted(loads, key=node_id)
        turn = service, filters
        last = self._last.get(turn)
        if last is None:
            if len(self._last) >= LIMIT:
                self._last.clear()
            load = self._rng.choice(loads)
        else:
            load = loads[self._after(last, loads)]
        self._last[turn] = load.node.id
        return load

    def _after(self, last: str, loads: Sequence[Load]) -> int:
        """Return whose turn is after the node with this id, which may be gone."""
        memo = loads.memo if isinstance(loads, Loads) else {}
        at: int | None = memo.get(self)
        if at is None or loads[at].node.id != last:
            at = bisect_right(loads, last, key=node_id) - 1
        at = at + 1 if at + 1 < len(loads) else 0
        memo[self] = at
        return at


class RoundRobinSelector(CachedSelector):
    """Gives the nodes of a service in turn to all calls of this client."""

    def __init__(self, registry: Registry, **settings: Unpack[Settings]) -> None:
        super().__init__(registry, RoundRobin(settings.get("rng")), **settings)
