"""Module random is the selector that gives any node, as Go Micro's default does."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Unpack

from shoal.registry import Registry
from shoal.selector import Load
from shoal.selector._cached import CachedSelector, Settings


def any_node(service: str, loads: Sequence[Load]) -> Load:
    """Give any node, each as likely as the others: a Strategy for one call."""
    return loads[int(random.random() * len(loads))]


class RandomSelector(CachedSelector):
    """Gives any node, each as likely as the others, and every time anew."""

    def __init__(self, registry: Registry, **settings: Unpack[Settings]) -> None:
        super().__init__(registry, self._choose, **settings)

    def _choose(self, service: str, loads: Sequence[Load]) -> Load:
        return loads[int(self._rng.random() * len(loads))]
