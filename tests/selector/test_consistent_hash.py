"""Tests of the selector that gives calls with the same key the same node."""

from __future__ import annotations

import random
from collections import Counter

import shoal.context as shoal_context
from shoal.errors import Unavailable
from shoal.registry import Record, Registry
from shoal.registry.memory import MemoryRegistry
from shoal.selector import Load, Selector
from shoal.selector._pool import Loads
from shoal.selector.consistent_hash import ConsistentHashSelector, consistent_hash, node_points
from shoal.selector.p2c import P2cSelector
from shoal.testing.conformance.selector import SelectorConformance, call

from .parts import Clock, make_loads, make_node, make_nodes

KEYS = [f"user-{number}" for number in range(2000)]


class TestConsistentHash(SelectorConformance):
    def make(self, registry: Registry) -> Selector:
        return ConsistentHashSelector(registry)


def homes(loads: list[Load]) -> dict[str, str]:
    return {key: consistent_hash(key)("greeter", loads).node.id for key in KEYS}


def without(loads: Loads, id: str) -> Loads:
    return Loads(load for load in loads if load.node.id != id)


def test_a_key_has_one_node_in_every_process() -> None:
    loads = make_loads(10)
    # Clients of other versions must agree, so these may never change.
    assert node_points("node-0000")[0] == 6520225487821449134
    assert [homes(loads)[key][-1] for key in KEYS[:4]] == ["7", "2", "6", "8"]
    assert homes(loads) == homes(list(reversed(loads)))


def test_keys_are_spread_evenly() -> None:
    for count in (2, 3, 10):
        given = Counter(homes(make_loads(count)).values())
        assert len(given) == count
        assert max(given.values()) < 1.35 * len(KEYS) / count
        assert min(given.values()) > 0.65 * len(KEYS) / count


def test_only_the_keys_of_a_node_move_when_it_goes() -> None:
    loads = make_loads(10)
    before, after = homes(loads), homes(without(loads, "node-0003"))
    moved = {key for key in KEYS if before[key] != after[key]}
    assert moved == {key for key in KEYS if before[key] == "node-0003"}
    assert len({after[key] for key in moved}) > 5  # and not all of them to one neighbour


async def test_another_attempt_goes_where_the_key_would_be_without_the_first() -> None:
    registry = MemoryRegistry()
    nodes = tuple(map(make_node, range(5)))
    await registry.register(Record("greeter", nodes=nodes))
    selector = P2cSelector(registry)
    strategy = consistent_hash("user-7")
    first = await call(selector, "greeter", strategy=strategy)
    assert await call(selector, "greeter", strategy=strategy) == first
    second = await call(selector, "greeter", [first.id], strategy=strategy)
    third = await call(selector, "greeter", [first.id, second.id], strategy=strategy)
    await registry.deregister(Record("greeter", nodes=(first,)))
    loads = without(make_loads(5), first.id)
    assert strategy("greeter", loads).node.id == second.id
    assert strategy("greeter", without(loads, second.id)).node.id == third.id
    assert repr(strategy) == "consistent_hash('user-7')"
    await selector.close()


async def test_the_key_is_taken_from_the_metadata() -> None:
    registry = MemoryRegistry()
    await registry.register(Record("greeter", nodes=tuple(map(make_node, range(5)))))
    selector = ConsistentHashSelector(registry)
    by_user = ConsistentHashSelector(registry, metadata="user-id")
    for key in KEYS[:20]:
        home = consistent_hash(key)("greeter", make_loads(5)).node.id
        with shoal_context.with_metadata({"hash-key": key}):
            assert {(await call(selector, "greeter")).id for _ in range(5)} == {home}
        with shoal_context.with_metadata(user_id=key):
            assert (await call(by_user, "greeter")).id == home
    assert len({(await call(selector, "greeter")).id for _ in range(200)}) == 5
    await selector.close()
    await by_user.close()


def test_a_ring_is_built_once_for_the_same_nodes() -> None:
    loads = make_loads(10)
    consistent_hash("a")("greeter", loads)
    (ring,) = loads.memo.values()
    consistent_hash("b")("greeter", loads)
    assert list(loads.memo.values()) == [ring]


def test_the_ring_of_a_service_follows_its_nodes() -> None:
    """However nodes come, go, fail and come back, a ring made anew would give the same."""
    chance = random.Random(5)
    nodes = make_nodes(Clock())
    nodes.update(record(*range(40)))
    kept = 0
    for _ in range(200):
        some = record(*chance.sample(range(60), chance.choice([1, 1, 1, 5])))
        ring = ring_of(nodes.pool.live)
        match chance.randrange(4):
            case 0:
                nodes.update(some)
            case 1:
                nodes.remove(some)
            case 2:
                failed = [load for load in nodes.pool.live if load.node in some.nodes]
                for load in failed:
                    nodes.mark(load.node, Unavailable("it is gone"), 0.1)
            case _:
                for load in list(nodes.loads.values()):
                    nodes.mark(load.node, None, 0.1)
        live = nodes.pool.live
        if not live:
            nodes.update(record(*range(40)))
            live = nodes.pool.live
        anew = Loads(live)
        for key in KEYS[:50]:
            assert consistent_hash(key)("greeter", live) is consistent_hash(key)("greeter", anew)
        kept += ring_of(live) is ring
    assert kept > 150


def record(*numbers: int) -> Record:
    return Record("greeter", "latest", tuple(make_node(number) for number in numbers))


def ring_of(loads: Loads) -> object:
    return next(iter(loads.memo.values()), None)
