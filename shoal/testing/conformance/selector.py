"""Module selector is the suite every selector passes: what the contract's docstrings promise.

    class TestZebra(SelectorConformance):
        def make(self, registry: Registry) -> Selector:
            return ZebraSelector(registry)

The tests are coroutines: run them with pytest-asyncio in auto mode.
"""

from __future__ import annotations

import asyncio
import itertools
from abc import abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest

from shoal import context
from shoal.errors import (
    BadRequest,
    ConnectionClosed,
    InternalServerError,
    NotFound,
    ServiceNotFound,
    Timeout,
    Unavailable,
)
from shoal.registry import Change, Endpoint, Node, Record, Registry
from shoal.registry.memory import MemoryRegistry
from shoal.selector import Filter, Load, Selector, Strategy
from shoal.selector.filters import endpoint, label, version

_names = (f"greeter-{number}" for number in itertools.count())


class FaultyRegistry(MemoryRegistry):
    """A memory registry that counts questions, and that can fail, hang and forget."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()
        self.down = False
        self.answer = asyncio.Event()
        self.answer.set()

    async def get(self, name: str) -> list[Record]:
        self.asked[name] += 1
        self._check()
        await self.answer.wait()
        return await super().get(name)

    async def watch(self, name: str | None = None) -> AsyncIterator[Change]:
        self._check()
        async for change in super().watch(name):
            yield change

    def break_watches(self) -> None:
        """End all watches as a lost connection does."""
        for feed in list(self._watches):
            feed.end(Unavailable("the watch was lost"))

    @property
    def watched(self) -> int:
        """How many watches are running."""
        return len(self._watches)

    def _check(self) -> None:
        if self.down:
            raise Unavailable("the registry is down")


class SelectorConformance:
    """One selector and the registry it asks.

    The attributes say what a selector truly cannot do or does another way; a suite of yours sets
    them.
    """

    deadline: ClassVar[float] = 20.0
    """Seconds until a change in the registry surely has an effect."""
    caches: ClassVar[bool] = True
    """Whether it keeps what the registry said, and so works while that is down."""
    failures_to_leave_out: ClassVar[int] = 1
    """How often in a row a node must fail to be left out, 0 if it never is."""
    leaves_out_for: ClassVar[float] = 0.2
    """Seconds for which it surely gets no calls then."""
    brings_back: ClassVar[bool] = True
    """Whether it soon gets calls again when it works."""
    serves_when_all_are_out: ClassVar[bool] = True
    handler_errors_count: ClassVar[bool] = False
    """Whether errors of handlers (code 500) count as failures of the node."""

    @abstractmethod
    def make(self, registry: Registry) -> Selector:
        """Return a selector for the registry."""

    # Who can be called

    async def test_a_service_nobody_runs_is_not_found(self) -> None:
        async with self._setup() as (_, selector):
            with pytest.raises(ServiceNotFound, match="absent") as caught:
                await selector.select("absent")
            assert caught.value.id == "shoal.client"

    async def test_the_only_node_is_given(self) -> None:
        async with self._setup() as (registry, selector):
            (node,) = await run(registry, name := next(_names), 1)
            assert [await call(selector, name) for _ in range(3)] == [node] * 3

    async def test_every_node_of_every_version_gets_calls(self) -> None:
        async with self._setup() as (registry, selector):
            name = next(_names)
            nodes = await run(registry, name, 3, release="1")
            nodes += await run(registry, name, 2, release="2", first=3)
            given = await self._calls(selector, name, 400)
            assert given.keys() == {node.id for node in nodes}

    async def test_services_are_apart(self) -> None:
        async with self._setup() as (registry, selector):
            one, other = next(_names), next(_names)
            (a,) = await run(registry, one, 1)
            (b,) = await run(registry, other, 1, first=7)
            assert await call(selector, one) == a
            assert await call(selector, other) == b

    async def test_a_node_that_was_tried_is_not_given_if_there_is_another(self) -> None:
        async with self._setup() as (registry, selector):
            nodes = await run(registry, name := next(_names), 3)
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
            name = next(_names)
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
            name = next(_names)
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
            await run(registry, name := next(_names), 2)
            for nobody in (version("9"), label("zone", "moon"), endpoint("Greeter.Fly")):
                with pytest.raises(Unavailable, match=name) as caught:
                    await selector.select(name, filters=[nobody])
                assert not isinstance(caught.value, ServiceNotFound)

    async def test_a_filter_that_depends_on_more_than_records_is_asked_each_time(self) -> None:
        async with self._setup() as (registry, selector):
            await run(registry, name := next(_names), 2)
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
            await run(registry, name := next(_names), 4)
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
            name = next(_names)
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
            await run(registry, name := next(_names), 1)
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

    # What changes

    async def test_a_node_that_comes_gets_calls_and_one_that_goes_gets_none(self) -> None:
        async with self._setup() as (registry, selector):
            (old,) = await run(registry, name := next(_names), 1)
            assert await call(selector, name) == old
            (new,) = await run(registry, name, 1, first=1)
            await self._becomes(lambda: self._given(selector, name), {old.id, new.id})
            await registry.deregister(Record(name, nodes=(old,)))
            await self._becomes(lambda: self._given(selector, name), {new.id})

    async def test_a_node_that_moved_is_called_where_it_is(self) -> None:
        async with self._setup() as (registry, selector):
            (node,) = await run(registry, name := next(_names), 1)
            old = (await selector.select(name))()
            moved = Node(node.id, "127.0.0.1:9999", node.metadata)
            await registry.register(Record(name, nodes=(moved,)))

            async def address() -> str:
                return (await call(selector, name)).address

            await self._becomes(address, moved.address)
            selector.mark(name, old, ConnectionClosed(), 0.001)  # says nothing of the new process
            assert await address() == moved.address

    async def test_a_service_that_vanished_is_not_found(self) -> None:
        async with self._setup() as (registry, selector):
            (node,) = await run(registry, name := next(_names), 1)
            choose = await selector.select(name)
            given = choose()
            await registry.deregister(Record(name, nodes=(node,)))
            await self._becomes(lambda: self._missing(selector, name), True)
            selector.mark(name, given, ConnectionClosed(), 0.001)

    async def test_a_service_that_starts_after_it_was_missed_is_found(self) -> None:
        async with self._setup() as (registry, selector):
            name = next(_names)
            assert await self._missing(selector, name)
            await run(registry, name, 1)
            await self._becomes(lambda: self._missing(selector, name), False)

    async def test_marks_of_strangers_are_no_error(self) -> None:
        async with self._setup() as (registry, selector):
            await run(registry, name := next(_names), 1)
            stranger = Node("stranger", "127.0.0.1:1")
            selector.mark("never asked for", stranger, ConnectionClosed(), 0.1)
            await selector.select(name)
            selector.mark(name, stranger, ConnectionClosed(), 0.1)
            selector.mark(name, stranger, None, 0.1)

    # The registry in trouble

    async def test_without_a_registry_nothing_can_be_told(self) -> None:
        async with self._setup() as (registry, selector):
            name = next(_names)
            registry.down = True
            with pytest.raises(Unavailable, match=name) as caught:
                await selector.select(name)
            assert not isinstance(caught.value, ServiceNotFound)
            registry.down = False
            await run(registry, name, 1)

            async def found() -> bool:
                try:
                    return bool(await selector.select(name))
                except Unavailable:
                    return False

            await self._becomes(found, True)

    async def test_known_nodes_are_given_while_the_registry_is_down(self) -> None:
        if not self.caches:
            return
        async with self._setup() as (registry, selector):
            (node,) = await run(registry, name := next(_names), 1)
            await selector.select(name)
            registry.down = True
            registry.break_watches()
            before = registry.asked[name]

            async def asked_again() -> bool:
                assert await call(selector, name) == node
                return registry.asked[name] > before + 1

            await self._becomes(asked_again, True)
            registry.down = False
            (new,) = await run(registry, name, 1, first=1)
            await self._becomes(lambda: self._given(selector, name), {node.id, new.id})

    async def test_a_watch_that_is_lost_is_begun_anew(self) -> None:
        async with self._setup() as (registry, selector):
            (old,) = await run(registry, name := next(_names), 1)
            for first in range(1, 4):
                await selector.select(name)
                registry.break_watches()
                (new,) = await run(registry, name, 1, first=first)
                await registry.deregister(Record(name, nodes=(old,)))
                await self._becomes(lambda: self._given(selector, name), {new.id})
                old = new

    # Asking the registry

    async def test_many_calls_ask_once(self) -> None:
        if not self.caches:
            return
        async with self._setup() as (registry, selector):
            await run(registry, name := next(_names), 3)
            registry.answer.clear()
            waiting = [asyncio.ensure_future(selector.select(name)) for _ in range(50)]
            await self._becomes(lambda: ready(registry.asked[name]), 1)
            registry.answer.set()
            for choose in await asyncio.gather(*waiting):
                choose()
            for _ in range(50):
                await selector.select(name, filters=[version("latest")])
            assert registry.asked[name] == 1

    async def test_one_that_gives_up_takes_nothing_from_the_others(self) -> None:
        async with self._setup() as (registry, selector):
            (node,) = await run(registry, name := next(_names), 1)
            registry.answer.clear()
            first, second, third = (asyncio.ensure_future(selector.select(name)) for _ in range(3))
            await self._becomes(lambda: ready(registry.asked[name] > 0), True)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            third.cancel()
            registry.answer.set()
            assert (await second)() == node
            with pytest.raises(asyncio.CancelledError):
                await third

    async def test_a_look_up_is_over_with_the_deadline_of_the_call(self) -> None:
        async with self._setup() as (registry, selector):
            (node,) = await run(registry, name := next(_names), 1)
            registry.answer.clear()
            patient = asyncio.ensure_future(selector.select(name))
            with context.deadline(0.05), pytest.raises(Timeout, match=name):
                await selector.select(name)
            registry.answer.set()
            assert (await patient)() == node

    async def test_a_service_nobody_runs_is_not_asked_for_all_the_time(self) -> None:
        if not self.caches:
            return
        async with self._setup() as (registry, selector):
            loop = asyncio.get_running_loop()
            begun = loop.time()
            for _ in range(100):
                assert await self._missing(selector, "absent")
            assert registry.asked["absent"] <= 1 + (loop.time() - begun) / 0.5

    # Nodes in trouble

    async def test_a_node_that_cannot_be_reached_is_left_out(self) -> None:
        if not self.failures_to_leave_out:
            return
        async with self._setup() as (registry, selector):
            refused = Unavailable("connection refused")
            refused.unsent = True
            for error in (ConnectionClosed("reset"), refused):
                while True:
                    nodes = await run(registry, name := next(_names), 3)
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
            nodes = await run(registry, name := next(_names), 3)
            bad = nodes[1].id
            await self._fail(selector, name, bad, ConnectionClosed())
            both = {node.id for node in nodes}
            await self._becomes(lambda: self._given(selector, name, 200), both)

    async def test_when_all_nodes_are_left_out(self) -> None:
        if not self.failures_to_leave_out:
            return
        async with self._setup() as (registry, selector):
            nodes = await run(registry, name := next(_names), 2)
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

    # The end

    async def test_closing_leaves_nothing_behind(self) -> None:
        before = asyncio.all_tasks()
        async with self._setup() as (registry, selector):
            await run(registry, name := next(_names), 3)
            await selector.select(name)
            assert await self._missing(selector, "absent")
            await selector.close()
            assert asyncio.all_tasks() <= before
            assert registry.watched == 0
            await selector.close()

    async def test_it_can_be_used_again_after_closing(self) -> None:
        async with self._setup() as (registry, selector):
            (node,) = await run(registry, name := next(_names), 1)
            given = (await selector.select(name))()
            await selector.close()
            selector.mark(name, given, None, 0.1)
            assert await call(selector, name) == node

    async def test_closing_ends_the_wait_of_calls(self) -> None:
        async with self._setup() as (registry, selector):
            await run(registry, name := next(_names), 1)
            registry.answer.clear()
            waiting = asyncio.ensure_future(selector.select(name))
            await self._becomes(lambda: ready(registry.asked[name] > 0), True)
            if not self.caches:
                registry.answer.set()
                await waiting
                return
            await selector.close()
            with pytest.raises(Unavailable):
                await waiting

    # How the tests do it

    @asynccontextmanager
    async def _setup(self) -> AsyncIterator[tuple[FaultyRegistry, Selector]]:
        registry = FaultyRegistry()
        selector = self.make(registry)
        async with asyncio.timeout(6 * self.deadline):
            try:
                yield registry, selector
            finally:
                registry.answer.set()
                await selector.close()
                await registry.close()

    async def _calls(self, selector: Selector, name: str, count: int) -> Counter[str]:
        """Make calls, one after the other, and return how many each node got."""
        return Counter([(await call(selector, name)).id for _ in range(count)])

    async def _given(self, selector: Selector, name: str, count: int = 60) -> set[str]:
        return set(await self._calls(selector, name, count))

    async def _missing(self, selector: Selector, name: str) -> bool:
        try:
            await selector.select(name)
        except ServiceNotFound:
            return True
        return False

    async def _fail(self, selector: Selector, name: str, id: str, error: Exception) -> None:
        def this(service: str, loads: Sequence[Load]) -> Load:
            return next(load for load in loads if load.node.id == id)

        choose = await selector.select(name, strategy=this)
        for _ in range(self.failures_to_leave_out):
            selector.mark(name, choose(), error, 0.001)

    async def _still_gets_calls(self, *errors: Exception) -> None:
        async with self._setup() as (registry, selector):
            nodes = await run(registry, name := next(_names), 2)
            for node in nodes:
                for error in errors:
                    await self._fail(selector, name, node.id, error)
            assert await self._given(selector, name, 200) == {node.id for node in nodes}

    async def _becomes(self, ask: Callable[[], Awaitable[object]], wanted: object) -> None:
        """Ask until the answer is the wanted one."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.deadline
        while (answer := await ask()) != wanted:
            assert loop.time() < until, f"{answer!r} did not become {wanted!r}"
            await asyncio.sleep(0.01)


async def call(
    selector: Selector,
    name: str,
    tried: Sequence[str] = (),
    *,
    filters: Sequence[Filter] = (),
    strategy: Strategy | None = None,
) -> Node:
    """Make a call that goes well and return the node that got it."""
    node = (await selector.select(name, filters=filters, strategy=strategy))(tried)
    selector.mark(name, node, None, 0.001)
    return node


async def ready(value: object) -> object:
    """Return a value that is at hand where one is awaited."""
    return value


async def run(
    registry: Registry,
    name: str,
    count: int,
    *,
    release: str = "latest",
    zone: str = "a",
    first: int = 0,
) -> list[Node]:
    """Register nodes `node-<number>` of a service and return them."""
    nodes = [
        Node(f"node-{number}", f"127.0.0.1:{5000 + number}", {"zone": zone})
        for number in range(first, first + count)
    ]
    endpoints = (Endpoint("Greeter.Hello"),)
    await registry.register(Record(name, release, tuple(nodes), endpoints))
    return nodes
