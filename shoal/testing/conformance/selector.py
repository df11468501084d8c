"""Module selector is the suite every selector passes: what the contract's docstrings promise.

    class TestZebra(SelectorConformance):
        def make(self, registry: Registry) -> Selector:
            return ZebraSelector(registry)

The tests are coroutines: run them with pytest-asyncio in auto mode.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from shoal.errors import (
    BadRequest,
    ConnectionClosed,
    InternalServerError,
    NotFound,
    ServiceNotFound,
    Unavailable,
)
from shoal.registry import Record
from shoal.selector import Load
from shoal.selector.filters import endpoint, label, version
from shoal.testing.conformance._selector import FaultyRegistry, call, names, run
from shoal.testing.conformance._selector_cache import CacheTests

__all__ = ["FaultyRegistry", "SelectorConformance", "call", "run"]


class SelectorConformance(CacheTests):
    """One selector and the registry it asks, which the suite makes."""

    # Who can be called

    async def test_a_service_nobody_runs_is_not_found(self) -> None:
        async with self._setup() as (_, selector):
            with pytest.raises(ServiceNotFound, match="absent") as caught:
                await selector.select("absent")
            assert caught.value.id == "shoal.client"

    async def test_the_only_node_is_given(self) -> None:
        async with self._setup() as (registry, selector):
            (node,) = await run(registry, name := next(names), 1)
            assert [await call(selector, name) for _ in range(3)] == [node] * 3

    async def test_every_node_of_every_version_gets_calls(self) -> None:
        async with self._setup() as (registry, selector):
            name = next(names)
            nodes = await run(registry, name, 3, release="1")
            nodes += await run(registry, name, 2, release="2", first=3)
            given = await self._calls(selector, name, 400)
            assert given.keys() == {node.id for node in nodes}

    async def test_services_are_apart(self) -> None:
        async with self._setup() as (registry, selector):
            one, other = next(names), next(names)
            (a,) = await run(registry, one, 1)
            (b,) = await run(registry, other, 1, first=7)
            assert await call(selector, one) == a
            assert await call(selector, other) == b

    async def test_a_node_that_was_tried_is_not_given_if_there_is_another(self) -> None:
        async with self._setup() as (registry, selector):
            nodes = await run(registry, name := next(names), 3)
            for _ in range(20):
                choose = await selector.select(name)
                tried: list[str] = []
                for _ in nodes:
                    node = choose(tried)
                    selector.mark(name, node, None, 0.001)
                    assert node.id not in tried
                    tried.append(node.id)
                again = choose(frozenset(tried))
                selector.mark(name, again, None, 0.001)
                assert again in nodes

    # Filters and strategies

    async def test_filters_decide_who_gets_calls(self) -> None:
        async with self._setup() as (registry, selector):
            name = next(names)
            old = await run(registry, name, 2, release="1", zone="a")
            new = await run(registry, name, 2, release="2", zone="b", first=2)
            for filters, left in (
                ([version("1")], old),
                ([label("zone", "b")], new),
                ([endpoint("Greeter.Hello")], old + new),
                ([version("2"), label("zone", "b")], new),
            ):
                given = {(await call(selector, name, filters=filters)).id for _ in range(200)}
                assert given == {node.id for node in left}

    async def test_filters_run_in_order_on_all_records(self) -> None:
        async with self._setup() as (registry, selector):
            name = next(names)
            await run(registry, name, 2, release="1")
            await run(registry, name, 1, release="2", first=2)
            seen: list[list[str]] = []

            def first(records: Sequence[Record]) -> Sequence[Record]:
                seen.append(sorted(record.version for record in records))
                return [record for record in records if record.version == "2"]

            def second(records: Sequence[Record]) -> Sequence[Record]:
                seen.append(sorted(record.version for record in records))
                return records

            assert (await call(selector, name, filters=[first, second])).id == "node-2"
            assert seen == [["1", "2"], ["2"]]

    async def test_filters_that_leave_nobody_make_it_unavailable(self) -> None:
        async with self._setup() as (registry, selector):
            await run(registry, name := next(names), 2)
            for nobody in (version("9"), label("zone", "moon"), endpoint("Greeter.Fly")):
                with pytest.raises(Unavailable, match=name) as caught:
                    await selector.select(name, filters=[nobody])
                assert not isinstance(caught.value, ServiceNotFound)

    async def test_a_filter_that_depends_on_more_than_records_is_asked_each_time(self) -> None:
        async with self._setup() as (registry, selector):
            await run(registry, name := next(names), 2)
            wanted = "node-0"

            def one(records: Sequence[Record]) -> Sequence[Record]:
                (record,) = records
                nodes = tuple(node for node in record.nodes if node.id == wanted)
                return [Record(record.name, record.version, nodes)]

            assert (await call(selector, name, filters=[one])).id == "node-0"
            wanted = "node-1"
            assert (await call(selector, name, filters=[one])).id == "node-1"

    async def test_a_strategy_decides_for_one_call(self) -> None:
        async with self._setup() as (registry, selector):
            await run(registry, name := next(names), 4)
            seen: list[tuple[str, list[str]]] = []

            def last(service: str, loads: Sequence[Load]) -> Load:
                seen.append((service, [load.node.id for load in loads]))
                return max(loads, key=lambda load: load.node.id)

            assert (await call(selector, name, strategy=last)).id == "node-3"
            assert (await call(selector, name, ["node-3"], strategy=last)).id == "node-2"
            assert all(service == name and ids for service, ids in seen)
            assert sorted(seen[0][1]) == [f"node-{number}" for number in range(4)]
            assert len(await self._calls(selector, name, 200)) == 4

    async def test_a_strategy_sees_only_what_filters_left(self) -> None:
        async with self._setup() as (registry, selector):
            name = next(names)
            await run(registry, name, 2, zone="a")
            await run(registry, name, 2, zone="b", first=2)
            seen: set[str] = set()

            def any_one(service: str, loads: Sequence[Load]) -> Load:
                seen.update(load.node.id for load in loads)
                return loads[0]

            await call(selector, name, filters=[label("zone", "b")], strategy=any_one)
            assert seen == {"node-2", "node-3"}

    async def test_calls_in_flight_and_their_latency_are_known(self) -> None:
        async with self._setup() as (registry, selector):
            await run(registry, name := next(names), 1)
            seen: list[Load] = []

            def only(service: str, loads: Sequence[Load]) -> Load:
                seen[:] = loads
                return loads[0]

            choose = await selector.select(name, strategy=only)
            nodes = [choose(), choose()]
            assert seen[0].in_flight == 2
            for left, node in enumerate(nodes):
                selector.mark(name, node, None, 0.25)
                assert seen[0].in_flight == 1 - left
            assert seen[0].latency == pytest.approx(0.25)

    # Nodes in trouble

    async def test_a_node_that_cannot_be_reached_is_left_out(self) -> None:
        if not self.failures_to_leave_out:
            return
        async with self._setup() as (registry, selector):
            refused = Unavailable("connection refused")
            refused.unsent = True
            for error in (ConnectionClosed("reset"), refused):
                while True:
                    nodes = await run(registry, name := next(names), 3)
                    bad = nodes[1].id
                    begun = asyncio.get_running_loop().time()
                    await self._fail(selector, name, bad, error)
                    given = await self._calls(selector, name, 50)
                    if asyncio.get_running_loop().time() - begun < self.leaves_out_for:
                        break  # else this machine was too slow to tell
                assert bad not in given
                assert len(given) == 2

    async def test_a_node_that_was_left_out_comes_back_when_it_works(self) -> None:
        if not (self.failures_to_leave_out and self.brings_back):
            return
        async with self._setup() as (registry, selector):
            nodes = await run(registry, name := next(names), 3)
            bad = nodes[1].id
            await self._fail(selector, name, bad, ConnectionClosed())
            both = {node.id for node in nodes}
            await self._becomes(lambda: self._given(selector, name, 200), both)

    async def test_when_all_nodes_are_left_out(self) -> None:
        if not self.failures_to_leave_out:
            return
        async with self._setup() as (registry, selector):
            nodes = await run(registry, name := next(names), 2)
            for node in nodes:
                await self._fail(selector, name, node.id, ConnectionClosed())
            choose = await selector.select(name)
            if self.serves_when_all_are_out:
                first = choose()
                assert choose([first.id]).id != first.id
            else:
                with pytest.raises(Unavailable, match=name):
                    choose()

    async def test_errors_of_the_caller_are_no_sign_of_a_bad_node(self) -> None:
        await self._still_gets_calls(BadRequest("no name"), NotFound("no such greeting"))

    async def test_errors_of_handlers_are_no_sign_of_a_bad_node(self) -> None:
        if not self.handler_errors_count:
            await self._still_gets_calls(
                InternalServerError("a bug", id="greeter"),
                Unavailable("my database is down", id="greeter"),
                ValueError("the reply does not fit"),
            )
