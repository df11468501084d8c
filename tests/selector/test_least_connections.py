"""Tests of the selector that gives the node with the fewest calls in flight."""

from __future__ import annotations

import random
from collections import Counter

from shoal.registry import Record, Registry
from shoal.registry.memory import MemoryRegistry
from shoal.selector import Selector
from shoal.selector.least_connections import (
    LeastConnectionsSelector,
    fewest,
    least_connections,
)
from shoal.testing.conformance.selector import SelectorConformance

from .parts import make_loads, make_node


class TestLeastConnections(SelectorConformance):
    def make(self, registry: Registry) -> Selector:
        return LeastConnectionsSelector(registry)


async def test_calls_that_last_are_spread_evenly() -> None:
    registry = MemoryRegistry()
    await registry.register(Record("greeter", nodes=tuple(map(make_node, range(7)))))
    selector = LeastConnectionsSelector(registry, rng=random.Random(1))
    choose = await selector.select("greeter")
    running = [choose() for _ in range(70)]
    assert set(Counter(node.id for node in running).values()) == {10}
    for node in running[:3]:
        selector.mark("greeter", node, None, 1.0)
    assert sorted(choose().id for _ in range(3)) == sorted(node.id for node in running[:3])
    await selector.close()


def test_ties_are_broken_by_chance() -> None:
    loads = make_loads(4)
    loads[2].in_flight = 1
    given = Counter(least_connections("greeter", loads).node.id for _ in range(3000))
    assert given.keys() == {"node-0000", "node-0001", "node-0003"}
    assert min(given.values()) > 800


def test_of_very_many_nodes_it_gives_one_of_the_best() -> None:
    loads = make_loads(5000)
    for number, load in enumerate(loads):
        load.in_flight = number
    chance = random.Random(3).random
    given = [fewest(loads, chance).in_flight for _ in range(500)]
    assert sum(rank < 1250 for rank in given) > 480
