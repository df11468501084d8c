"""Tests of the selector that takes the better of two."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

from shoal.registry import Record, Registry
from shoal.registry.memory import MemoryRegistry
from shoal.selector import Load, Selector
from shoal.selector.p2c import P2cSelector, better_of_two, p2c
from shoal.testing.clock import FakeClock
from shoal.testing.conformance.selector import SelectorConformance

from .parts import make_loads, make_node


class TestP2c(SelectorConformance):
    def make(self, registry: Registry) -> Selector:
        return P2cSelector(registry)


def share(loads: list[Load], chance: random.Random, calls: int = 2000) -> Counter[str]:
    """Count who would get the calls if nothing changed meanwhile."""
    return Counter(better_of_two(chance.random)("greeter", loads).node.id for _ in range(calls))


def measured(count: int, latency: float) -> list[Load]:
    now = asyncio.get_running_loop().time()
    loads = make_loads(count)
    for load in loads:
        load.latency, load.marked = latency, now
    return loads


async def test_any_two_nodes_are_compared() -> None:
    loads = measured(5, 0.01)
    loads[4].latency = 0.001
    assert set(share(loads, random.Random(1))) == {load.node.id for load in loads}
    loads = measured(2, 0.01)
    loads[1].latency = 0.02
    assert share(loads, random.Random(1)).keys() == {loads[0].node.id}


async def test_calls_in_flight_weigh_as_latency_does() -> None:
    one, other = measured(2, 0.01)
    one.in_flight, other.in_flight, other.latency = 3, 0, 0.03
    assert p2c("greeter", [one, other]) is other
    one.in_flight = 1
    assert p2c("greeter", [one, other]) is one


async def test_the_same_seed_gives_the_same_nodes() -> None:
    loads = measured(10, 0.01)
    assert share(loads, random.Random(7)) == share(loads, random.Random(7))


async def test_a_new_node_is_tried_but_not_flooded() -> None:
    loads = measured(2, 0.01)
    fresh = Load(make_node(9))
    loads.append(fresh)
    for load in loads[:2]:
        load.in_flight = 2
    given, chance = Counter[str](), random.Random(1)
    for _ in range(30):  # none of them is over yet
        load = better_of_two(chance.random)("greeter", loads)
        load.in_flight += 1
        given[load.node.id] += 1
    assert 1 <= given[fresh.node.id] <= 15


async def test_a_slow_node_is_avoided_and_comes_back() -> None:
    async with FakeClock() as clock:
        registry = MemoryRegistry()
        nodes = (make_node(0), make_node(1))
        await registry.register(Record("greeter", nodes=nodes))
        selector = P2cSelector(registry, rng=random.Random(1))
        slow, begun = nodes[0].id, asyncio.get_running_loop().time()
        first: float | None = None
        given = Counter[str]()
        while (now := asyncio.get_running_loop().time() - begun) < 120:
            node = (await selector.select("greeter"))()
            given[node.id] += 1
            if node.id == slow and first is not None and now > first:
                break
            if node.id == slow:
                first = now
            await clock.advance(0.1)
            selector.mark("greeter", node, None, 1.0 if node.id == slow else 0.01)
        assert given[slow] == 2
        assert first is not None
        assert 20 < now - first < 60  # about ten seconds for each factor of e in 1.0 / 0.01
        await selector.close()


async def test_one_node_needs_no_choice() -> None:
    (load,) = make_loads(1)
    assert p2c("greeter", [load]) is load
