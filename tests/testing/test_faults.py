"""Faults: what each does to calls, streams, events and discovery, and that a seed repeats it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

import shoal
from shoal.broker import Broker, Guarantees
from shoal.broker.memory import MemoryBroker
from shoal.message import Message
from shoal.registry import Node, Record, Registry
from shoal.registry.memory import MemoryRegistry
from shoal.testing import FakeClock, Faults, Network
from shoal.testing.conformance.broker import BrokerConformance
from shoal.testing.conformance.registry import RegistryConformance
from shoal.testing.conformance.transport import TransportConformance
from shoal.transport import Transport
from shoal.transport.http import HttpTransport
from shoal.transport.memory import MemoryTransport

PATIENCE = 30.0


class Counter:
    def __init__(self) -> None:
        self.handled: list[str] = []

    async def add(self, name: str) -> str:
        self.handled.append(name)
        return name

    async def count(self, until: int) -> AsyncIterator[int]:
        for number in range(until):
            yield number

    async def echo(self, items: AsyncIterator[int]) -> AsyncIterator[int]:
        async for item in items:
            yield item


async def add(network: Network, name: str, **options: Any) -> str:
    async with asyncio.timeout(PATIENCE):
        return await network.client.call(
            shoal.Request("counter", "Counter.Add", name, str), **options
        )


async def until(holds: Callable[[], bool]) -> None:
    while not holds():  # noqa: ASYNC110  # what is counted tells nobody
        await asyncio.sleep(0.01)


def stub(network: Network, **options: Any) -> Counter:
    return shoal.stub(Counter, "counter", network.client, **options)


# Without faults nothing changes: the suites of the interfaces hold


class TestFaultyTransport(TransportConformance):
    network = MemoryTransport()

    def make(self) -> Transport:
        return Faults().transport(self.network)


class TestFaultyHttpTransport(TransportConformance):
    def make(self) -> Transport:
        return Faults().transport(HttpTransport())


class TestFaultyRegistry(RegistryConformance):
    closing_takes = "all"

    def setup_method(self) -> None:
        self.registry = MemoryRegistry()

    def make(self) -> Registry:
        return Faults().registry(self.registry)


class TestFaultyBroker(BrokerConformance):
    shared = True

    def make(self, *, unread: int = 1024) -> Broker:
        return Faults().broker(MemoryBroker(unread=unread))


# Messages


async def test_a_lost_request_runs_nothing_and_a_lost_reply_hides_what_ran() -> None:
    faults = Faults(7)
    async with FakeClock() as clock, Network(faults) as network:
        counter = Counter()
        await network.serve(counter)
        assert await add(network, "before") == "before"
        faults.drop = 1.0
        call = asyncio.ensure_future(add(network, "lost", timeout=5))
        await clock.advance(6)
        with pytest.raises(shoal.Timeout):
            await call
        assert counter.handled == ["before"]
        faults.drop = 0.0
        assert await add(network, "after") == "after"


async def test_a_request_that_arrives_twice() -> None:
    faults = Faults(7, duplicate=1.0)
    async with Network(faults) as network:
        counter = Counter()
        await network.serve(counter)
        assert await add(network, "a") == "a"
        assert await add(network, "b") == "b"
        async with asyncio.timeout(PATIENCE):
            await until(lambda: sorted(counter.handled) == ["a", "a", "b", "b"])


async def test_messages_come_late() -> None:
    faults = Faults(7)
    async with FakeClock() as clock, Network(faults) as network:
        await network.serve(Counter())
        faults.delay = 10.0
        begun = clock.now
        call = asyncio.ensure_future(add(network, "a", timeout=25))
        for _ in range(250):
            await clock.advance(0.1)
            if call.done():
                break
        assert await call == "a"
        assert 0 < clock.now - begun < 21


async def test_a_bit_is_flipped() -> None:
    faults = Faults(7, corrupt=1.0)
    async with Network(faults) as network:
        await network.serve(Counter())
        replies: list[Any] = []
        for _ in range(20):
            try:
                replies.append(await add(network, "abcdefgh"))
            except shoal.Error as error:
                replies.append(type(error))
        assert "abcdefgh" not in replies


async def test_a_connection_is_cut() -> None:
    faults = Faults(7, cut=1.0)
    async with Network(faults) as network:
        await network.serve(Counter())
        with pytest.raises(shoal.Unavailable):
            await add(network, "a")
        faults.cut = 0.0
        assert await add(network, "b") == "b"


@pytest.mark.parametrize("over", ["memory", "http"])
async def test_the_items_of_a_stream_are_lost_repeated_and_swapped(over: str) -> None:
    faults = Faults(11)
    own: dict[str, Any] = {"transport": HttpTransport()} if over == "http" else {}
    async with asyncio.timeout(PATIENCE), Network(faults) as network:
        await network.serve(Counter(), **own)
        caller = network.service("caller", **own)
        await network.start(caller)
        counter = shoal.stub(Counter, "counter", caller.client)
        assert [item async for item in counter.count(30)] == list(range(30))
        faults.reorder = 0.3
        swapped = [item async for item in counter.count(30)]
        assert sorted(swapped) == list(range(30)) != swapped
        faults.reorder, faults.duplicate = 0.0, 0.5
        twice = [item async for item in counter.count(30)]
        assert len(twice) > 30
        assert sorted(set(twice)) == list(range(30))


async def test_what_a_seed_does_it_does_again() -> None:
    async def run(seed: int) -> tuple[list[str], list[str]]:
        faults = Faults(seed, drop=0.1, duplicate=0.2, cut=0.1, corrupt=0.05)
        async with FakeClock() as clock, Network(faults) as network:
            await network.serve(Counter())
            faults.delay = 0.5  # from now on, when somebody moves the clock
            outcomes = []
            for number in range(40):
                call = asyncio.ensure_future(add(network, str(number), timeout=2))
                await clock.advance(3)
                try:
                    outcomes.append(await call)
                except shoal.Error as error:
                    outcomes.append(type(error).__name__)
            return outcomes, list(faults.log)

    first, second, other = await run(7), await run(7), await run(8)
    assert first == second
    assert first != other
    assert "Timeout" in first[0]
    assert sum(outcome.isdigit() for outcome in first[0]) > 20


def test_one_rate_does_not_change_what_another_does() -> None:
    def drops(faults: Faults) -> list[bool]:
        flow = faults.flow("a")
        return [flow.next().drop for _ in range(100)]

    assert drops(Faults(7, drop=0.3)) == drops(Faults(7, drop=0.3, delay=1.0, cut=0.9))
    assert drops(Faults(7, drop=0.3)) != drops(Faults(8, drop=0.3))


# Places


async def test_a_partition_is_waited_for_and_what_was_sent_arrives() -> None:
    faults = Faults(7)
    async with FakeClock() as clock, Network(faults) as network:
        counter = Counter()
        service = await network.serve(counter)
        assert await add(network, "before") == "before"
        faults.partition("test", service)
        late = asyncio.ensure_future(add(network, "late", timeout=60))
        gone = asyncio.ensure_future(add(network, "gone", timeout=2))
        await clock.advance(3)
        with pytest.raises(shoal.Timeout):
            await gone
        assert not late.done()
        faults.heal()
        await clock.advance(1)
        assert await late == "late"
        assert counter.handled == ["before", "late"]


async def test_who_dials_into_a_partition_is_told_in_the_end() -> None:
    faults = Faults(7)
    async with FakeClock() as clock, Network(faults) as network:
        await network.serve(Counter())
        faults.partition("test", "counter")
        call = asyncio.ensure_future(add(network, "a", timeout=60))
        await clock.advance(4)
        assert not call.done()
        await clock.advance(30)
        with pytest.raises(shoal.Unavailable, match="does not reach counter"):
            await call


async def test_others_do_not_notice_a_partition() -> None:
    faults = Faults(7)
    async with Network(faults) as network:
        await network.serve(Counter())
        faults.partition("somebody", "counter")
        assert await add(network, "a") == "a"


@pytest.mark.parametrize("over", ["memory", "http"])
async def test_a_killed_service_is_gone_at_once_and_another_takes_over(over: str) -> None:
    faults = Faults(7)
    own: dict[str, Any] = {"transport": HttpTransport()} if over == "http" else {}
    async with asyncio.timeout(PATIENCE), Network(faults) as network:
        first, second = Counter(), Counter()
        dying = await network.serve(first, **own)
        await network.serve(second, **own)
        caller = network.service("caller", **own)
        await network.start(caller)
        counter = shoal.stub(Counter, "counter", caller.client)
        for number in range(20):
            await counter.add(str(number))
        assert first.handled
        assert second.handled
        await faults.kill(dying)
        handled = len(first.handled)
        failed = 0
        for number in range(20):
            try:
                await counter.add(str(number))
            except shoal.Unavailable:
                failed += 1
        assert failed <= 1
        assert len(first.handled) == handled


async def test_a_killed_service_stays_registered_for_its_ttl() -> None:
    faults = Faults(7)
    async with FakeClock() as clock, Network(faults) as network:
        dying = await network.serve(Counter(), register_ttl=30.0, register_interval=10.0)
        registry = network.settings.get("registry")
        assert isinstance(registry, MemoryRegistry)
        await clock.advance(100)
        assert await registry.get("counter")
        await faults.kill(dying)
        await clock.advance(15)
        assert await registry.get("counter")
        await clock.advance(20)
        assert not await registry.get("counter")
        faults.revive(dying)
        await clock.advance(60)
        assert await registry.get("counter")


async def test_a_call_that_runs_ends_when_either_side_is_killed() -> None:
    class Slow:
        cancelled = 0

        async def wait(self, name: str) -> str:
            try:
                await asyncio.sleep(PATIENCE)
            except asyncio.CancelledError:
                Slow.cancelled += 1
                raise
            return name

    faults = Faults(7)
    async with asyncio.timeout(PATIENCE / 2), Network(faults) as network:
        service = await network.serve(Slow())
        request = shoal.Request("slow", "Slow.Wait", "a", str)
        for dying in (service, "test"):
            call = asyncio.ensure_future(network.client.call(request))
            await asyncio.sleep(0.05)
            await faults.kill(dying)
            with pytest.raises(shoal.Unavailable):
                await call
            faults.revive(dying)
        await asyncio.sleep(0.05)
        assert Slow.cancelled == 2


async def test_a_service_without_faults_is_no_place() -> None:
    faults = Faults()
    with pytest.raises(TypeError, match="no network with faults"):
        faults.partition(shoal.Service("a", transport="memory"), "b")
    with pytest.raises(TypeError, match="given as objects"):
        Network(faults).service("a", transport="memory")


# Discovery


RECORD = Record("greeter", nodes=(Node("greeter-1", "127.0.0.1:8080"),))


async def test_a_registry_that_does_not_answer_and_one_that_lies() -> None:
    faults = Faults(3)
    registry = faults.registry(MemoryRegistry(), "here")
    await registry.register(RECORD)
    faults.corrupt = 1.0
    assert [node.address for record in await registry.get("greeter") for node in record.nodes] == [
        "127.0.0.1:1"
    ]
    faults.corrupt, faults.drop = 0.0, 1.0
    for question in (registry.get("greeter"), registry.services(), registry.register(RECORD)):
        with pytest.raises(shoal.Unavailable):
            await question
    faults.drop = 0.0
    assert await registry.services() == ["greeter"]


async def test_a_watch_ends_with_a_partition_and_repeats_changes() -> None:
    faults = Faults(3, duplicate=1.0)
    inner = MemoryRegistry()
    registry = faults.registry(inner, "here")
    got: asyncio.Queue[str] = asyncio.Queue()

    async def watch() -> None:
        async for change in registry.watch("greeter"):
            got.put_nowait(change.action)

    watching = asyncio.ensure_future(watch())
    async with asyncio.timeout(PATIENCE):
        await asyncio.sleep(0.01)
        await inner.register(RECORD)
        await inner.deregister(RECORD)
        await until(lambda: got.qsize() == 4)
        got_all = [got.get_nowait() for _ in range(4)]
        assert got_all == ["create", "create", "delete", "delete"]
        faults.partition("here", "registry")
        with pytest.raises(shoal.Unavailable):
            await watching
        with pytest.raises(shoal.Unavailable):
            await registry.get("greeter")
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_calls_go_on_without_a_registry() -> None:
    faults = Faults(7)
    async with FakeClock() as clock, Network(faults) as network:
        await network.serve(Counter(), register_ttl=1000.0)
        assert await add(network, "before") == "before"
        faults.partition("test", "registry")
        await clock.advance(300)
        assert await add(network, "meanwhile") == "meanwhile"
        faults.heal()
        await clock.advance(60)
        assert await add(network, "after") == "after"


# Events


class SureBroker(MemoryBroker):
    """Promises what it does not do, to see what is made of the promise."""

    guarantees = Guarantees(delivery="at least once", groups=True)


async def publish(broker: Broker, count: int) -> tuple[list[bytes], int]:
    """Return what arrives of so many events, and how many could not be published."""
    got: list[bytes] = []
    failed = 0

    async def take(message: Message) -> None:
        got.append(message.body)

    await broker.subscribe("news", take)
    for number in range(count):
        try:
            await broker.publish("news", Message({}, str(number).encode()))
        except shoal.Unavailable:
            failed += 1
    await asyncio.sleep(0.1)
    await broker.disconnect()
    return got, failed


async def test_events_are_lost_where_that_may_be() -> None:
    got, failed = await publish(Faults(7, drop=0.5).broker(MemoryBroker()), 100)
    assert (20 < len(got) < 80, failed) == (True, 0)


async def test_events_are_not_lost_silently_where_they_must_arrive() -> None:
    got, failed = await publish(Faults(7, drop=0.5).broker(SureBroker()), 100)
    assert failed > 20
    assert len(got) >= 100 - failed  # of some only the answer was lost


async def test_events_are_repeated_swapped_and_changed() -> None:
    numbers = [str(number).encode() for number in range(100)]
    got, _ = await publish(Faults(7, duplicate=0.5).broker(MemoryBroker()), 100)
    assert (len(got) > 120, sorted(set(got))) == (True, sorted(numbers))
    got, _ = await publish(Faults(7, reorder=0.5).broker(MemoryBroker()), 100)
    assert (sorted(got), got != numbers) == (sorted(numbers), True)
    got, _ = await publish(Faults(7, corrupt=1.0).broker(MemoryBroker()), 100)
    assert len(got) == 100
    assert got != numbers


async def test_events_wait_for_the_end_of_a_partition() -> None:
    faults = Faults(7)
    got: list[str] = []

    async def take(event: str) -> None:
        got.append(event)

    async with FakeClock() as clock, Network(faults) as network:
        reader = network.service("reader")
        reader.subscribe("news", take)
        await network.start(reader)
        faults.partition("reader", "broker")
        await network.client.publish("news", "a")
        await clock.advance(5)
        assert not got
        faults.heal()
        await clock.advance(1)
        assert got == ["a"]
        faults.partition("test", "broker")
        with pytest.raises(shoal.Unavailable):
            await network.client.publish("news", "b")


def test_what_a_plan_shows() -> None:
    faults = Faults(7, drop=0.5)
    faults.partition("a", "b")
    assert repr(faults) == "Faults(7, drop=0.5, apart=[['a', 'b']])"
