"""Module label is the selector that prefers nodes by their labels: the own zone, the own region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from shoal.registry import Registry
from shoal.selector import Load, Strategy
from shoal.selector._cached import CachedSelector, Settings
from shoal.selector._pool import Loads
from shoal.selector.p2c import better_of_two, p2c

Labels = tuple[tuple[str, str], ...]


def prefer(*labels: tuple[str, str]) -> Strategy:
    """Return a Strategy that prefers nodes with the first label, then the second, then any.

    A label is a name and a value in the node's metadata. Among equals the better of two is given.
    """
    return _Prefer(labels)


class LabelSelector(CachedSelector):
    """Gives nodes that have the first of the labels, if none is left the second, then any.

    Among nodes that are equally preferred the better of two is given. A filter, other than this,
    fails the call when no node has the label.
    """

    def __init__(
        self,
        registry: Registry,
        *,
        labels: Sequence[tuple[str, str]] = (),
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(registry, self._choose, **settings)
        self._labels: Labels = tuple((key, value) for key, value in labels)
        self._better = better_of_two(self._rng.random)

    def _choose(self, service: str, loads: Sequence[Load]) -> Load:
        return self._better(service, _preferred(loads, self._labels))


class _Prefer:
    __slots__ = ("_labels",)

    def __init__(self, labels: Labels) -> None:
        self._labels = labels

    def __repr__(self) -> str:
        return f"prefer{self._labels!r}"

    def __call__(self, service: str, loads: Sequence[Load]) -> Load:
        return p2c(service, _preferred(loads, self._labels))


def _preferred(loads: Sequence[Load], labels: Labels) -> Sequence[Load]:
    if not isinstance(loads, Loads):
        return _first(loads, labels)
    key = _Prefer, labels
    found: Sequence[Load] | None = loads.memo.get(key)
    if found is None:
        found = loads.memo[key] = _first(loads, labels)
    return found


def _first(loads: Sequence[Load], labels: Labels) -> Sequence[Load]:
    for key, value in labels:
        found = [load for load in loads if load.node.metadata.get(key) == value]
        if found:
            return found
    return loads
