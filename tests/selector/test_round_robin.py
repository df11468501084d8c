"""Tests of the selector that gives one node after the other."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest

from shoal.registry import Node, Record, Registry
from shoal.registry.memory import MemoryRegistry
from shoal.selector import Load, Selector
from shoal.selector.filters import label
from shoal.selector.p2c import P2cSelector
from shoal.selector.round_robin import RoundRobin, RoundRobinSelector
from shoal.testing.conformance.selector import SelectorConformance, call

from .parts import make_loads, make_node


class TestRoundRobin(SelectorConformance):
    def make(self, registry: Registry) -> Selector:
        return RoundRobinSelector(registry)


def turn(ids: list[str]) -> list[str]:
    """Return ids beginning with the smallest, which is where a turn begins over."""
    at = ids.index(min(ids))
    return ids[at:] + ids[:at]


async def test_calls_go_round_by_node_id() -> None:
    registry = MemoryRegistry()
    for number in (3, 1, 2, 0):
        await registry.register(Record("greeter", nodes=(make_node(number),)))
    selector = RoundRobinSelector(registry)
    given = [(await call(selector, "greeter")).id for _ in range(8)]
    assert turn(given[:4]) == [f"node-000{number}" for number in range(4)]
    assert given[4:] == given[:4]
    await selector.close()


async def test_concurrent_calls_share_one_turn() -> None:
    registry = MemoryRegistry()
    await registry.register(Record("greeter", nodes=tuple(map(make_node, range(5)))))
    selector = RoundRobinSelector(registry)

    async def caller() -> list[Node]:
        found = []
        for _ in range(20):
            found.append(await call(selector, "greeter"))
            await asyncio.sleep(0)
        return found

    found = await asyncio.gather(*(caller() for _ in range(10)))
    given = Counter(node.id for nodes in found for node in nodes)
    assert set(given.values()) == {40}
    await selector.close()


def test_the_turn_goes_on_when_nodes_come_and_go() -> None:
    strategy = RoundRobin(random.Random(1))
    loads = make_loads(6)
    while strategy("greeter", loads).node.id != "node-0002":
        pass
    fewer = [load for load in loads if load.node.id not in ("node-0002", "node-0003")]
    assert strategy("greeter", type(loads)(fewer)).node.id == "node-0004"
    assert strategy("greeter", loads).node.id == "node-0005"
    more = type(loads)([*loads, Load(make_node(7))])
    assert [strategy("greeter", more).node.id for _ in range(2)] == ["node-0007", "node-0000"]


async def test_calls_with_filters_have_a_turn_of_their_own() -> None:
    registry = MemoryRegistry()
    zones = "aab"
    nodes = tuple(make_node(number, zone=zone) for number, zone in enumerate(zones))
    await registry.register(Record("greeter", nodes=nodes))
    selector = RoundRobinSelector(registry)
    all_calls, some = Counter[str](), Counter[str]()
    for _ in range(30):
        all_calls[(await call(selector, "greeter")).id] += 1
        some[(await call(selector, "greeter", filters=[label("zone", "a")])).id] += 1
    assert set(all_calls.values()) == {10}
    assert set(some.values()) == {15}
    await selector.close()


async def test_it_is_a_strategy_for_single_calls_of_another_selector() -> None:
    registry = MemoryRegistry()
    await registry.register(Record("greeter", nodes=tuple(map(make_node, range(3)))))
    selector = P2cSelector(registry)
    strategy = RoundRobin()
    given = [(await call(selector, "greeter", strategy=strategy)).id for _ in range(6)]
    assert given[:3] == given[3:]
    assert len(set(given)) == 3
    assert repr(strategy) == "RoundRobin(1 turns)"
    await selector.close()


@pytest.mark.parametrize("services", [10, 5000])
def test_turns_that_are_remembered_are_bounded(services: int) -> None:
    strategy, loads = RoundRobin(), make_loads(2)
    for number in range(services):
        strategy(f"greeter-{number}", loads)
    assert len(strategy._last) <= 4096


def test_loads_in_any_order_are_sorted() -> None:
    strategy, loads = RoundRobin(), list(make_loads(4))
    mixed = [loads[number] for number in (2, 0, 3, 1)]
    given = [strategy("greeter", mixed).node.id for _ in range(4)]
    assert turn(given) == [load.node.id for load in loads]
