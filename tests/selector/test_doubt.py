"""Tests of what is believed of a registry that suddenly knows nobody."""

from __future__ import annotations

import logging

import pytest

from shoal.errors import ConnectionClosed, InternalServerError, ServiceNotFound
from shoal.registry import Record
from shoal.selector import Load
from shoal.selector._doubt import MOST, Doubt
from shoal.selector.random import RandomSelector
from shoal.testing.clock import FakeClock
from shoal.testing.conformance.selector import FaultyRegistry, call, run

from .parts import Clock, make_node


async def given(selector: RandomSelector, name: str = "greeter", count: int = 60) -> set[str]:
    return {(await call(selector, name)).id for _ in range(count)}


async def fail(selector: RandomSelector, id: str) -> None:
    """Call until a node was given, and find that it cannot be reached."""
    while True:
        node = (await selector.select("greeter"))()
        if node.id == id:
            selector.mark("greeter", node, ConnectionClosed(), 0.001)
            return
        selector.mark("greeter", node, None, 0.001)


async def test_nodes_that_answer_stay_when_the_registry_lost_its_data(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FakeClock() as clock:
        registry = FaultyRegistry()
        selector = RandomSelector(registry, ttl=60)
        nodes = await run(registry, "greeter", 3)
        everyone = {node.id for node in nodes}
        assert await given(selector) == everyone
        registry.break_watches()
        registry._records.clear()
        for _ in range(60):
            await clock.advance(10)
            assert await given(selector) == everyone
        assert "3 in doubt" in repr(selector)
        warnings = [one for one in caplog.records if one.levelno == logging.WARNING]
        assert [one.getMessage() for one in warnings] == [
            "MemoryRegistry([], nodes=0, watches=1) tells of no node of service 'greeter'"
            " any more; the 3 known last are called as long as they answer"
        ]
        await selector.close()


async def test_nodes_that_answer_stay_when_their_registrations_end_one_after_another() -> None:
    async with FakeClock() as clock:
        registry = FaultyRegistry()
        selector = RandomSelector(registry, ttl=60)
        nodes = await run(registry, "greeter", 3)
        await call(selector, "greeter")
        for left, node in enumerate(nodes, 1):
            await registry.deregister(Record("greeter", nodes=(node,)))
            await clock.advance(5)
            assert len(await given(selector)) == (3 - left or 3)
        await selector.close()


async def test_one_in_doubt_that_cannot_be_reached_is_gone() -> None:
    async with FakeClock() as clock:
        registry = FaultyRegistry()
        selector = RandomSelector(registry, ttl=60)
        nodes = await run(registry, "greeter", 2)
        await call(selector, "greeter")
        await registry.deregister(Record("greeter", nodes=tuple(nodes)))
        await clock.advance(1)
        node = (await selector.select("greeter"))()
        selector.mark("greeter", node, InternalServerError("its handler's"), 0.001)
        assert len(await given(selector)) == 2
        await fail(selector, "node-0")
        assert await given(selector) == {"node-1"}
        choose = await selector.select("greeter")
        selector.mark("greeter", choose(), ConnectionClosed(), 0.001)
        with pytest.raises(ServiceNotFound):
            choose(["node-1"])  # another attempt of the same call
        with pytest.raises(ServiceNotFound):
            await selector.select("greeter")
        await selector.close()


async def test_one_that_was_out_when_it_left_is_gone() -> None:
    async with FakeClock() as clock:
        registry = FaultyRegistry()
        selector = RandomSelector(registry, ttl=60)
        nodes = await run(registry, "greeter", 2)
        await call(selector, "greeter")
        await fail(selector, "node-0")
        await registry.deregister(Record("greeter", nodes=tuple(nodes)))
        await clock.advance(3)
        assert await given(selector) == {"node-1"}
        await selector.close()


async def test_one_in_doubt_that_nobody_calls_is_forgotten() -> None:
    async with FakeClock() as clock:
        registry = FaultyRegistry()
        selector = RandomSelector(registry, ttl=60)
        nodes = await run(registry, "greeter", 2)
        await call(selector, "greeter")
        await registry.deregister(Record("greeter", nodes=tuple(nodes)))
        await clock.advance(200)
        with pytest.raises(ServiceNotFound):
            await selector.select("greeter")
        await selector.close()


async def test_those_in_doubt_stay_until_all_had_time_to_register_again() -> None:
    async with FakeClock() as clock:
        registry = FaultyRegistry()
        selector = RandomSelector(registry, ttl=60)
        nodes = await run(registry, "greeter", 3)
        await call(selector, "greeter")
        await registry.deregister(Record("greeter", nodes=tuple(nodes)))
        await clock.advance(5)
        await run(registry, "greeter", 1)
        await clock.advance(5)
        assert len(await given(selector)) == 3
        await run(registry, "greeter", 1, first=1)
        for _ in range(20):
            await clock.advance(10)
            await given(selector)
        assert await given(selector) == {"node-0", "node-1"}
        assert "0 in doubt" in repr(selector)
        await selector.close()


async def test_a_fleet_that_was_replaced_is_not_in_doubt() -> None:
    async with FakeClock() as clock:
        registry = FaultyRegistry()
        selector = RandomSelector(registry, ttl=60)
        old = await run(registry, "greeter", 2)
        await call(selector, "greeter")
        await run(registry, "greeter", 2, first=2)
        await registry.deregister(Record("greeter", nodes=tuple(old)))
        await clock.advance(1)
        assert await given(selector) == {"node-2", "node-3"}
        assert "0 in doubt" in repr(selector)
        await selector.close()


def test_those_that_left_are_remembered_for_a_minute_and_not_without_bounds() -> None:
    clock = Clock()
    doubt = Doubt(clock)
    for number in range(3000):
        doubt.left(Load(make_node(number)), "latest", alive=True)
    doubt.ids.add("last")
    last = {"last": Load(make_node(9999))}
    assert len(doubt.recalled(last)) == MOST
    doubt.ids.intersection_update(last)
    doubt.left(Load(make_node(1)), "latest", alive=True)
    clock.now += 61
    doubt.left(Load(make_node(2)), "latest", alive=True)
    doubt.left(Load(make_node(3)), "latest", alive=False)
    assert [load.node.id for load, _ in doubt.recalled(last)] == ["node-0002"]
