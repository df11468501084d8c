"""Tests of the selector that leaves nodes out which keep failing."""

from __future__ import annotations

import pytest

from shoal.errors import BadRequest, Error, InternalServerError, NotFound, Timeout, Unavailable
from shoal.registry import Record, Registry
from shoal.registry.memory import MemoryRegistry
from shoal.selector import Selector
from shoal.selector.blacklist import BlacklistSelector, blames_node
from shoal.testing.clock import FakeClock
from shoal.testing.conformance.selector import SelectorConformance, call

from .parts import make_node


class TestBlacklist(SelectorConformance):
    failures_to_leave_out = 3
    leaves_out_for = 25.0
    brings_back = False  # not soon: after 30 seconds
    serves_when_all_are_out = False
    handler_errors_count = True

    def make(self, registry: Registry) -> Selector:
        return BlacklistSelector(registry)


async def fail(selector: Selector, times: int) -> None:
    """Let calls of the only node fail."""
    for _ in range(times):
        node = (await selector.select("greeter"))()
        selector.mark("greeter", node, InternalServerError("no"), 0.01)


async def out(selector: Selector) -> bool:
    try:
        node = (await selector.select("greeter"))()
    except Unavailable:
        return True
    selector.mark("greeter", node, BadRequest(), 0.01)
    return False


async def one_node() -> MemoryRegistry:
    registry = MemoryRegistry()
    await registry.register(Record("greeter", nodes=(make_node(0),)))
    return registry


async def test_three_errors_in_a_row_leave_a_node_out_for_thirty_seconds() -> None:
    async with FakeClock() as clock:
        selector = BlacklistSelector(await one_node())
        await fail(selector, 2)
        await call(selector, "greeter")
        await fail(selector, 2)
        assert not await out(selector)
        await fail(selector, 3)
        with pytest.raises(Unavailable, match="all 1 nodes of service 'greeter' are left out"):
            (await selector.select("greeter"))()
        await clock.advance(29.5)
        assert await out(selector)
        await clock.advance(0.6)
        # Back for good, and with a clean record: not only for one call.
        choose = await selector.select("greeter")
        for node in [choose(), choose(), choose()]:
            selector.mark("greeter", node, None, 0.1)
        await fail(selector, 2)
        assert not await out(selector)
        await selector.close()


async def test_the_time_begins_with_the_last_error() -> None:
    async with FakeClock() as clock:
        selector = BlacklistSelector(await one_node(), errors=2, seconds=10)
        choose = await selector.select("greeter")
        running = choose()
        await fail(selector, 2)
        await clock.advance(6)
        selector.mark("greeter", running, Timeout(), 6.0)
        await clock.advance(6)
        assert await out(selector)
        await clock.advance(4.1)
        assert not await out(selector)
        await selector.close()


async def test_old_errors_are_forgotten() -> None:
    async with FakeClock() as clock:
        selector = BlacklistSelector(await one_node())
        for _ in range(5):
            await fail(selector, 2)
            await clock.advance(31)
        assert not await out(selector)
        await selector.close()


async def test_a_call_that_goes_well_brings_a_node_back() -> None:
    async with FakeClock():
        selector = BlacklistSelector(await one_node())
        running = (await selector.select("greeter"))()
        await fail(selector, 3)
        assert await out(selector)
        selector.mark("greeter", running, None, 0.5)
        assert not await out(selector)
        await selector.close()


async def test_with_one_left_all_calls_go_there_even_when_tried() -> None:
    registry = MemoryRegistry()
    nodes = (make_node(0), make_node(1))
    await registry.register(Record("greeter", nodes=nodes))
    selector = BlacklistSelector(registry)

    def first(service: str, loads: object) -> object:
        return loads[0]  # type: ignore[index]  # the least a strategy can be

    choose = await selector.select("greeter", strategy=first)  # type: ignore[arg-type]  # ditto
    for _ in range(3):
        selector.mark("greeter", choose(), Unavailable("refused"), 0.01)
    assert [await call(selector, "greeter", [nodes[1].id]) for _ in range(5)] == [nodes[1]] * 5
    await selector.close()


def test_what_the_caller_did_wrong_does_not_blame_the_node() -> None:
    assert not blames_node(BadRequest())
    assert not blames_node(NotFound())
    for error in (Timeout(), InternalServerError(), Unavailable(), Error("plain"), OSError()):
        assert blames_node(error)
