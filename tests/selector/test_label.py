"""Tests of the selector that prefers nodes by their labels."""

from __future__ import annotations

from shoal.errors import ConnectionClosed
from shoal.registry import Node, Record, Registry
from shoal.registry.memory import MemoryRegistry
from shoal.selector import Selector
from shoal.selector.label import LabelSelector, prefer
from shoal.selector.p2c import P2cSelector
from shoal.testing.conformance.selector import SelectorConformance, call

from .parts import make_node

LABELS = [("zone", "a"), ("region", "eu")]
NODES = (
    make_node(0, zone="b", region="us"),
    make_node(1, zone="a", region="eu"),
    make_node(2, zone="b", region="eu"),
    make_node(3, zone="a", region="eu"),
)


class TestLabel(SelectorConformance):
    def make(self, registry: Registry) -> Selector:
        return LabelSelector(registry)


async def filled() -> MemoryRegistry:
    registry = MemoryRegistry()
    await registry.register(Record("greeter", nodes=NODES))
    return registry


async def given(selector: Selector, *tried: Node) -> set[str]:
    ids = [node.id for node in tried]
    return {(await call(selector, "greeter", ids)).id[-1] for _ in range(100)}


async def test_the_first_label_wins_and_other_attempts_move_on() -> None:
    selector = LabelSelector(await filled(), labels=LABELS)
    assert await given(selector) == {"1", "3"}
    assert await given(selector, NODES[1]) == {"3"}
    assert await given(selector, NODES[1], NODES[3]) == {"2"}
    assert await given(selector, NODES[1], NODES[2], NODES[3]) == {"0"}
    await selector.close()


async def test_nodes_that_cannot_be_reached_are_not_preferred() -> None:
    selector = LabelSelector(await filled(), labels=LABELS)
    choose = await selector.select("greeter")
    for _ in range(2):
        selector.mark("greeter", choose(), ConnectionClosed(), 0.01)
    assert (choose()).id == NODES[2].id
    await selector.close()


async def test_it_is_a_strategy_for_one_call() -> None:
    selector = P2cSelector(await filled())
    strategy = prefer(("zone", "nowhere"), ("region", "us"))
    assert (await call(selector, "greeter", strategy=strategy)).id == NODES[0].id
    assert repr(strategy) == "prefer(('zone', 'nowhere'), ('region', 'us'))"
    await selector.close()
