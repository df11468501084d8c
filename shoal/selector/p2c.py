"""Module p2c is the selector that takes the better of two nodes: the default."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from math import exp
from typing import Unpack

from shoal.registry import Registry
from shoal.selector import Load, Strategy
from shoal.selector._cached import CachedSelector, Settings
from shoal.selector._health import DECAY


class P2cSelector(CachedSelector):
    """Takes two nodes by chance and gives the one where a call is likely over first.

    What counts is the smoothed latency times the calls in flight. The latency fades while a node
    gets no calls, so a node that was slow is tried again, the later the slower it was.
    """

    def __init__(self, registry: Registry, **settings: Unpack[Settings]) -> None:
        rng = settings.setdefault("rng", random.Random(random.random()))
        super().__init__(registry, better_of_two(rng.random), **settings)


def better_of_two(chance: Callable[[], float]) -> Strategy:
    """Return a strategy that gives the better of two loads `chance` (in [0, 1)) points to."""

    def choose(service: str, loads: Sequence[Load]) -> Load:
        count = len(loads)
        if count == 1:
            return loads[0]
        first = int(chance() * count)
        second = int(chance() * (count - 1))
        a = loads[first]
        b = loads[second + 1 if second >= first else second]
        cost_a, cost_b = a.latency, b.latency
        if cost_a and cost_b:
            cost_a *= a.in_flight + 1
            cost_b *= b.in_flight + 1
            # Both fade by the same law, so only the time between their marks makes a difference.
            later = a.marked - b.marked
            if later > 0:
                cost_b *= exp(-later / DECAY)
            elif later:
                cost_a *= exp(later / DECAY)
            return a if cost_a <= cost_b else b
        # Of one that was never called, one answer is awaited before it gets more than its share.
        if not cost_a and not a.in_flight:
            return a
        if not cost_b and not b.in_flight:
            return b
        return a if a.in_flight <= b.in_flight else b

    return choose


_p2c = better_of_two(random.random)


def p2c(service: str, loads: Sequence[Load]) -> Load:
    """Take two nodes by chance and give the one with less to do: a Strategy for one call."""
    return _p2c(service, loads)
