"""Tests of the selector that gives any node."""

from __future__ import annotations

import random
from collections import Counter

from shoal.registry import Record, Registry
from shoal.registry.memory import MemoryRegistry
from shoal.selector import Selector
from shoal.selector.random import RandomSelector, any_node
from shoal.testing.conformance.selector import SelectorConformance, call

from .parts import make_loads, make_node


class TestRandom(SelectorConformance):
    def make(self, registry: Registry) -> Selector:
        return RandomSelector(registry)


async def test_nodes_are_equally_likely_whatever_they_do() -> None:
    registry = MemoryRegistry()
    await registry.register(Record("greeter", nodes=tuple(map(make_node, range(10)))))
    selector = RandomSelector(registry, rng=random.Random(5))
    choose = await selector.select("greeter")
    given = Counter(choose().id for _ in range(10_000))  # none of these calls is ever over
    assert len(given) == 10
    assert all(850 < count < 1150 for count in given.values())
    await selector.close()


async def test_the_same_seed_gives_the_same_nodes() -> None:
    registry = MemoryRegistry()
    await registry.register(Record("greeter", nodes=tuple(map(make_node, range(10)))))
    runs = []
    for _ in range(2):
        selector = RandomSelector(registry, rng=random.Random(5))
        runs.append([await call(selector, "greeter") for _ in range(20)])
        await selector.close()
    assert runs[0] == runs[1]


def test_it_is_a_strategy_for_one_call() -> None:
    loads = make_loads(3)
    assert {any_node("greeter", loads).node.id for _ in range(200)} == {
        load.node.id for load in loads
    }
