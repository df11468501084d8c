"""Module least_connections is the selector that gives the node with the fewest calls in flight."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Unpack

from shoal.registry import Registry
from shoal.selector import Load
from shoal.selector._cached import CachedSelector, Settings

ALL = 64  # up to so many nodes each is looked at; of more, looking costs more than it wins
SAMPLE = 8


def least_connections(service: str, loads: Sequence[Load]) -> Load:
    """Give the node with the fewest calls in flight: a Strategy for one call."""
    return fewest(loads, random.random)


class LeastConnectionsSelector(CachedSelector):
    """Gives the node with the fewest of this client's calls in flight, any of several such.

    It looks at all nodes up to 64. Of more it looks at 8 or 9 that are, in the order of their ids,
    as far apart as can be; one is among the best quarter in 9 of 10 calls.
    """

    def __init__(self, registry: Registry, **settings: Unpack[Settings]) -> None:
        super().__init__(registry, self._choose, **settings)

    def _choose(self, service: str, loads: Sequence[Load]) -> Load:
        return fewest(loads, self._rng.random)


def fewest(loads: Sequence[Load], chance: Callable[[], float]) -> Load:
    """Return a load with the fewest calls in flight; `chance` gives numbers in [0, 1)."""
    count = len(loads)
    if count > ALL:
        apart = count // SAMPLE
        loads = loads[int(chance() * apart) :: apart]
    least = min([load.in_flight for load in loads])
    best = [load for load in loads if load.in_flight == least]
    return best[int(chance() * len(best))]
