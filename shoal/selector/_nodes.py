"""Module _nodes holds what the registry tells of one service: its nodes by id, with their load."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Collection, Container, Sequence, Set
from dataclasses import replace

from shoal.errors import Unavailable
from shoal.registry import Node, Record
from shoal.selector import Filter, Load
from shoal.selector._doubt import Doubt
from shoal.selector._health import DECAY, Health, Out, Policy, unreachable
from shoal.selector._pool import ID, Pool
from shoal.selector.filters import Pure

VIEWS = 64  # filtered views kept per service


class Nodes:
    """The nodes of one service. A load lives as long as its node has the same id and address."""

    def __init__(
        self, name: str, *, clock: Callable[[], float], rng: random.Random, policy: Policy
    ) -> None:
        self.name = name
        self._clock = clock
        self.loads: dict[str, Load] = {}
        self.health = Health(self.loads, self._health_changed, clock=clock, rng=rng, policy=policy)
        self.doubt = Doubt(clock)
        self.pool = Pool(name, self.loads, self.health)
        self._versions: dict[str, str] = {}  # node id -> version
        self._shapes: dict[str, Record] = {}  # version -> its record without nodes
        self._missed: set[str] = set()  # not in the last answer
        self._leaving: dict[tuple[str, str], Load] = {}  # gone, but calls still run
        self._records: Sequence[Record] | None = None
        self._views: dict[tuple[Filter, ...], Pool] = {}

    # What the registry says

    def replace(self, records: Sequence[Record], keep: Container[str] = ()) -> bool:
        """Take a whole answer; nodes whose id is in `keep` stay as (or as absent as) they are.

        A node that is missing stays until a second answer misses it too: an answer over multicast
        can get lost. True if there are such nodes, so that another look-up is due soon.
        """
        found = {
            node.id: (node, record.version)
            for record in records
            for node in record.nodes
            if node.id not in keep
        }
        missing = {id for id in self.loads if id not in found and id not in keep}
        gone = missing & self._missed
        self._missed = missing - gone
        for record in records:
            self._shape(record)
        self._put(found.values(), gone)
        used = set(self._versions.values())
        self._shapes = {version: one for version, one in self._shapes.items() if version in used}
        return bool(self._missed)

    def update(self, record: Record) -> None:
        """Add nodes or replace what is known of them."""
        self._shape(record)
        self._put([(node, record.version) for node in record.nodes], set())

    def remove(self, record: Record) -> None:
        """Forget nodes of this version; one that moved to another version stays."""
        version = record.version
        self._put((), {one.id for one in record.nodes if self._versions.get(one.id) == version})

    def disprove(self, node: Node, error: Exception) -> bool:
        """Forget a node in doubt that could not be reached; True if it is gone."""
        load = self.loads.get(node.id)
        if load is None or load.node is not node or node.id not in self.doubt.ids:
            return False
        if not unreachable(error):
            return False
        self.health.out.setdefault(node.id, Out())  # it is not to be recalled
        self._changed((), [self._drop(node.id)])
        return True

    def busy(self) -> bool:
        """Whether calls are running."""
        return bool(self._leaving) or any(load.in_flight for load in self.loads.values())

    def _shape(self, record: Record) -> None:
        known = self._shapes.get(record.version)
        if (
            known is None
            or known.endpoints != record.endpoints
            or known.metadata != record.metadata
        ):
            self._shapes[record.version] = replace(record, nodes=())
            self._forget_views()

    def _put(self, found: Collection[tuple[Node, str]], lost: Set[str]) -> None:
        self.doubt.vouched({node.id for node, _ in found})
        lost = self.doubt.leaving(lost, self.loads, self.health.out, known=bool(found))
        gone = [self._drop(id) for id in lost]
        added = self._recall()
        fresh = False
        for node, version in found:
            load = self.loads.get(node.id)
            if load is not None and load.node.address != node.address:
                gone.append(self._drop(node.id))  # another process has its id: it starts afresh
                load = None
            if load is None:
                load = self._leaving.pop((node.id, node.address), None) or Load(node)
                added.append(load)
                self.loads[node.id] = load
            elif load.node == node and self._versions[node.id] == version:
                continue
            load.node = node
            self._versions[node.id] = version
            fresh = True
        self._changed(added, gone, fresh)

    def _changed(self, added: Sequence[Load], gone: Sequence[Load], fresh: bool = False) -> None:
        if fresh or added or gone:
            self.pool.members_changed(added, gone)
            self._forget_views()

    def _drop(self, id: str) -> Load:
        load = self.loads.pop(id)
        alive = self.health.out.pop(id, None) is None
        self.doubt.left(load, self._versions.pop(id), alive)
        if load.in_flight:
            self._leaving[id, load.node.address] = load
        return load

    def _recall(self) -> list[Load]:
        back = self.doubt.recalled(self.loads)
        for load, version in back:
            self.loads[load.node.id] = load
            self._versions[load.node.id] = version
            self._shapes.setdefault(version, Record(self.name, version))
            self._leaving.pop((load.node.id, load.node.address), None)
        return [load for load, _ in back]

    def _forget_views(self) -> None:
        self._records = None
        self._views.clear()

    # What filters leave

    def view(self, filters: Sequence[Filter]) -> Pool:
        """Return the pool of nodes that all filters leave. Raises Unavailable if there are none."""
        key = tuple(filters)
        if not all(isinstance(one, Pure) for one in key):
            return self._checked(Pool(self.name, self._filtered(key), self.health, None), key)
        pool = self._views.get(key)
        if pool is None:
            if len(self._views) >= VIEWS:
                self._views.clear()
            pool = Pool(self.name, self._filtered(key), self.health, key)
            self._views[key] = pool
        return self._checked(pool, key)

    def _checked(self, pool: Pool, filters: tuple[Filter, ...]) -> Pool:
        if not pool.members:
            raise Unavailable(
                f"none of the {len(self.loads)} nodes of service {self.name!r} passes the filters"
                f" {', '.join(map(repr, filters))}",
                id=ID,
            )
        return pool

    def _filtered(self, filters: tuple[Filter, ...]) -> dict[str, Load]:
        records = self._all_records()
        for one in filters:
            records = one(records)
        members = {}
        for record in records:
            for node in record.nodes:
                load = self.loads.get(node.id)
                if load is None or load.node.address != node.address:
                    load = Load(node)  # the filter's own: nothing is known of it
                members[node.id] = load
        return members

    def _all_records(self) -> Sequence[Record]:
        if self._records is None:
            by_version: dict[str, list[Node]] = {}
            for load in self.pool.everyone:
                by_version.setdefault(self._versions[load.node.id], []).append(load.node)
            self._records = [
                replace(self._shapes[version], nodes=tuple(nodes))
                for version, nodes in sorted(by_version.items())
            ]
        return self._records

    # How attempts go

    def mark(self, node: Node, error: Exception | None, elapsed: float) -> None:
        """Take in how an attempt went."""
        load = self.loads.get(node.id)
        if load is None or load.node is not node:
            load = self._find(node)
            if load is None:
                return
        if load.in_flight:
            load.in_flight -= 1
        now = self._clock()
        if error is None:  # noted here, as most calls go well and each further step costs them all
            latency = load.latency
            if elapsed >= latency:
                load.latency = elapsed
            elif elapsed:  # it rises at once and falls slowly; 0 was not measured (a stream)
                weight = math.exp((load.marked - now) / DECAY)
                load.latency = elapsed + (latency - elapsed) * weight
            if load.errors or self.health.out:
                self.health.reached(load, now)
        else:
            self.health.failed(load, error, elapsed, now)
        load.marked = now

    def _find(self, node: Node) -> Load | None:
        load = self.loads.get(node.id)
        if load is not None and load.node.address == node.address:
            return load
        load = self._leaving.get((node.id, node.address))
        if load is not None and load.in_flight <= 1:
            del self._leaving[node.id, node.address]
        return load

    def _health_changed(self, back: Sequence[Load], out: Sequence[Load]) -> None:
        for pool in (self.pool, *self._views.values()):
            pool.health_changed(back, out)
