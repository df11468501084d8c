"""Module _doubt decides what to believe of a registry that suddenly knows nobody of a service."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Container, Mapping, Set

from shoal.selector import Load

RECENT = 60.0  # seconds in which a fleet that cannot renew its registrations loses all of them
RETURN = 60.0  # and in which all have registered again once the registry knows the first
UNUSED = 60.0  # seconds without a call after which there is no telling whether a node answers
MOST = 1024  # nodes that left, remembered


class Doubt:
    """The nodes of a service that stay known although the registry tells of nobody.

    A registry that lost its data, or that the nodes cannot reach, looks like one that is right.
    The nodes themselves know better: while they answer they stay, `ids` are theirs. One that could
    not be reached, or that nobody called for a while, is gone.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.ids: set[str] = set()
        self._clock = clock
        self._left: dict[str, tuple[Load, str, float]] = {}  # id -> load, version, when it left
        self._until = math.inf  # those in doubt stay

    def vouched(self, found: Collection[str]) -> None:
        """Take in that the registry tells of these nodes."""
        self.ids.difference_update(found)
        for id in found:
            self._left.pop(id, None)
        if self.ids and found and self._until == math.inf:  # the first of those that return
            self._until = self._clock() + RETURN

    def leaving(
        self,
        lost: Set[str],
        loads: Mapping[str, Load],
        out: Container[str],
        *,
        known: bool,
    ) -> Set[str]:
        """Return which of the nodes the registry does not tell of any more are to be forgotten.

        `known`: it tells of some in the same breath.
        """
        if not lost:
            return lost
        if known or any(id not in lost and id not in self.ids for id in loads):
            if self._clock() < self._until:
                return lost - self.ids
            return lost
        self._until = math.inf
        gone = {
            id
            for id in lost
            if id in out or loads[id].errors or (id in self.ids and self._unused(loads[id]))
        }
        self.ids |= lost - gone
        return gone

    def left(self, load: Load, version: str, alive: bool) -> None:
        """Take in that a node is forgotten; `alive` says that it answered until now."""
        id = load.node.id
        if id in self.ids:
            self.ids.discard(id)
        elif alive:
            self._left.pop(id, None)  # to be the last one
            self._left[id] = load, version, self._clock()
            self._forget_old()

    def recalled(self, loads: Mapping[str, Load]) -> list[tuple[Load, str]]:
        """Return the nodes that left shortly before the last one, with their versions.

        They come when only nodes in doubt are left, and are in doubt then.
        """
        if not self.ids or len(self.ids) < len(loads):
            return []
        self._forget_old()
        back = {
            id: (load, version) for id, (load, version, _) in self._left.items() if id not in loads
        }
        self._left.clear()
        self.ids.update(back)
        return list(back.values())

    def _forget_old(self) -> None:
        since = self._clock() - RECENT
        while self._left:
            id, (_, _, left) = next(iter(self._left.items()))  # in the order in which they left
            if left >= since and len(self._left) <= MOST:
                break
            del self._left[id]

    def _unused(self, load: Load) -> bool:
        return self._clock() - load.marked > UNUSED and not load.in_flight
