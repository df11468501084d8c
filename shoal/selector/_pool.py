"""Module _pool is the nodes a call may go to, and the chooser that gives one of them."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Container, Iterable, Sequence
from operator import attrgetter
from typing import Any, Protocol, runtime_checkable

from shoal.errors import ServiceNotFound, Unavailable
from shoal.registry import Node
from shoal.selector import Filter, Load, Next, Strategy
from shoal.selector._health import Health

ID = "shoal.client"
FEW = 32  # up to so many changes are sorted in one by one

Filters = tuple[Filter, ...] | None

node_id = attrgetter("node.id")


class Loads(list[Load]):
    """Loads sorted by node id. It never changes once a strategy has seen it.

    `filters` are those that left them, None for filters that cannot be told apart; `memo` is
    where a strategy may keep what it worked out for these very loads.
    """

    __slots__ = ("filters", "memo")

    def __init__(self, loads: Iterable[Load] = (), filters: Filters = ()) -> None:
        super().__init__(loads)
        self.filters = filters
        self.memo: dict[Any, Any] = {}


@runtime_checkable
class Follower(Protocol):
    """What a strategy keeps in a `memo` that changes with the loads, rather than be made anew."""

    @abstractmethod
    def follow(self, added: Iterable[Load], gone: Iterable[Load], count: int) -> bool:
        """Take in what came and went; returns whether it stands for `count` loads now.

        It may have some of those that came, and lack some of those that went.
        """


def _hand_over(old: Loads, new: Loads, added: Sequence[Load], gone: Sequence[Load]) -> None:
    for key, kept in list(old.memo.items()):
        if isinstance(kept, Follower):
            del old.memo[key]
            if kept.follow(added, gone, len(new)):
                new.memo[key] = kept


class Pool:
    """The nodes that filters left: all of them, and those that are not out."""

    __slots__ = ("everyone", "filters", "health", "live", "members", "name", "out")

    def __init__(
        self, name: str, members: dict[str, Load], health: Health, filters: Filters = ()
    ) -> None:
        self.name = name
        self.members = members
        self.health = health
        self.filters = filters
        self.out = health.out
        self.everyone = Loads()
        self.live = self.everyone
        self._rebuild()

    def members_changed(self, added: Sequence[Load], gone: Sequence[Load]) -> None:
        """Take in that members came, went or (with neither) got another node."""
        if len(added) + len(gone) > FEW:
            self._rebuild()
            return
        self.everyone = self._with(self.everyone, added, gone)
        self.live = self._with(self.live, added, gone) if self.out else self.everyone

    def health_changed(self, back: Sequence[Load], out: Sequence[Load]) -> None:
        """Take in that nodes became available or unavailable."""
        members = self.members
        back = [load for load in back if members.get(load.node.id) is load]
        out = [load for load in out if members.get(load.node.id) is load]
        if not self.out:
            before, self.live = self.live, self.everyone
            if before is not self.live and len(back) + len(out) <= FEW:
                _hand_over(before, self.live, back, out)
        elif len(back) + len(out) > FEW:
            self._rebuild()
        elif back or out:
            self.live = self._with(self.live, back, out)

    def candidates(self) -> Loads:
        """Return the loads to choose from while some are out; all of them if none is left.

        Raises ServiceNotFound if there are none, Unavailable if all are out and the policy is
        strict.
        """
        self.health.offer()
        if self.live:
            return self.live
        if not self.everyone:
            raise ServiceNotFound(f"no node of service {self.name!r} is left", id=ID)
        if self.health.policy.strict:
            raise Unavailable(
                f"all {len(self.everyone)} nodes of service {self.name!r} are left out after"
                f" errors, the next is tried in {self.health.wait():.1f} s",
                id=ID,
            )
        return self.everyone

    def _rebuild(self) -> None:
        self.everyone = Loads(sorted(self.members.values(), key=node_id), self.filters)
        self.live = self.everyone
        if self.out:
            self.live = Loads(filter(self.health.available, self.everyone), self.filters)

    def _with(self, loads: Loads, added: Sequence[Load], gone: Sequence[Load]) -> Loads:
        result = Loads(loads, self.filters)
        for load in gone:
            at = bisect_left(result, load.node.id, key=node_id)
            if at < len(result) and result[at] is load:
                del result[at]
        for load in added:
            at = bisect_left(result, load.node.id, key=node_id)
            if at == len(result) or result[at] is not load:
                result.insert(at, load)
        _hand_over(loads, result, added, gone)
        return result


class Choice(Next):
    """Gives nodes of a pool by a strategy. `used` tells that it did since that was unset."""

    __slots__ = ("pool", "strategy", "used")

    def __init__(self, pool: Pool, strategy: Strategy) -> None:
        self.pool = pool
        self.strategy = strategy
        self.used = True

    def __repr__(self) -> str:
        return f"Choice({self.pool.name!r}, {len(self.pool.live)} live nodes)"

    def __call__(self, tried: Container[str] = ()) -> Node:
        pool = self.pool
        loads = pool.live
        if pool.out or not loads:
            loads = pool.candidates()
        self.used = True
        load = self.strategy(pool.name, loads)
        if tried and load.node.id in tried:
            load = self._other(tried, load)
        load.in_flight += 1
        if pool.out:
            pool.health.given(load)
        return load.node

    def _other(self, tried: Container[str], first: Load) -> Load:
        pool = self.pool
        for loads in (pool.live,) if pool.health.policy.strict else (pool.live, pool.everyone):
            rest = [load for load in loads if load.node.id not in tried]
            if rest:
                return self.strategy(pool.name, rest)
        return first
