"""The broker over RabbitMQ: the suite, with a real server, and what is its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any, ClassVar

import aiormq
import pytest

from shoal.broker import Broker
from shoal.broker.rabbitmq import RabbitBroker, RabbitSettings, Retry
from shoal.errors import BadRequest, TooLarge, Unavailable
from shoal.message import Message
from shoal.testing.conformance._broker import Inbox, count, event, settles, unique
from shoal.testing.conformance.broker import BrokerConformance
from tests.servers import Background, Note, need
from tests.servers.rabbitmq import RabbitServer


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    need(RabbitServer)
    background = Background(RabbitServer())
    with background:
        yield background


@pytest.fixture
def server(background: Background) -> RabbitServer:
    assert isinstance(background.server, RabbitServer)
    return background.server


class TestRabbit(BrokerConformance):
    bounded: ClassVar[bool] = False  # what waits, waits in the server

    @pytest.fixture(autouse=True)
    def _server(self, server: RabbitServer) -> None:
        self.server = server

    def make(self, *, unread: int = 1024) -> Broker:
        return RabbitBroker(self.server.url)


DEADLINE = 30.0
RESTARTS = int(os.environ.get("SHOAL_RESTARTS", "3"))
SOON = Retry(attempts=3, backoff=0.05)


@contextlib.asynccontextmanager
async def brokers(server: RabbitServer, number: int, **options: Any) -> AsyncIterator[list[Any]]:
    """Give so many brokers with the same options, and end them."""
    if options.get("durable"):  # all who use one exchange must agree
        options.setdefault("settings", RabbitSettings(exchange="durable"))
    options.setdefault("retry", SOON)
    made = [RabbitBroker(server.url, **options) for _ in range(number)]
    async with asyncio.timeout((6 + RESTARTS) * DEADLINE):
        try:
            yield made
        finally:
            for broker in made:
                await broker.disconnect()


@contextlib.asynccontextmanager
async def raw(server: RabbitServer) -> AsyncIterator[Any]:
    """Give a channel that nothing of ours stands in front of."""
    connection = await aiormq.connect(server.url)
    try:
        yield await connection.channel()
    finally:
        await connection.close()


# What comes again


async def test_what_fails_comes_again_and_is_a_dead_letter_at_last(server: RabbitServer) -> None:
    topic, inbox, letters = unique(), Inbox(), Inbox()
    async with brokers(server, 2) as (one, other):

        async def fail(message: Message) -> None:
            await inbox.deliver(message)
            if message.body != event(1).body:
                raise ValueError("größe")

        await one.subscribe(topic, fail, queue=topic + ".queue")
        await other.publish(topic, Message({"Kind": "x"}, b"poison"))
        await other.publish(topic, event(1))
        # It is kept, though nobody listens yet.
        await settles(lambda: inbox.bodies.count(b"poison") == 3, DEADLINE)
        async with raw(server) as channel:

            async def kept() -> int:
                async with asyncio.timeout(DEADLINE):
                    while True:
                        with contextlib.suppress(aiormq.AMQPError):
                            declared = await channel.queue_declare(f"{topic}.dead", durable=True)
                            if declared.message_count:
                                return int(declared.message_count)
                        await asyncio.sleep(0.02)

            assert await kept() == 1
        durable = RabbitBroker(
            server.url, durable=True, settings=RabbitSettings(durable_exchange=False)
        )
        try:
            await durable.subscribe(f"{topic}.dead", letters.deliver, queue=f"{topic}.dead")
            await letters.has(1, DEADLINE)
        finally:
            await durable.disconnect()
    assert Counter(inbox.bodies) == {b"poison": 3, event(1).body: 1}
    header = letters.messages[0].header
    assert letters.bodies == [b"poison"]
    assert header["Kind"] == "x"
    assert header["Micro-Topic"] == f"{topic}.dead"
    assert header["Dead-Letter-Topic"] == topic
    assert header["Dead-Letter-Queue"] == f"{topic}.queue"
    assert header["Dead-Letter-Attempts"] == "3"
    assert header["Dead-Letter-Reason"] == "größe"
    assert not [name for name in header if name.lower().startswith("x-")]


async def test_others_are_delivered_while_one_pauses(server: RabbitServer) -> None:
    topic, inbox = unique(), Inbox()
    first = True
    async with brokers(server, 1, retry=Retry(attempts=2, backoff=1.0)) as (one,):

        async def fail_once(message: Message) -> None:
            nonlocal first
            await inbox.deliver(message)
            if first:
                first = False
                raise ValueError("no")

        await one.subscribe(topic, fail_once)
        for number in range(10):
            await one.publish(topic, event(number))
        await inbox.has(11, DEADLINE)
    assert inbox.bodies == [event(number).body for number in (*range(10), 0)]
    assert all(message.header["Micro-Topic"] == topic for message in inbox.messages)


async def test_without_attempts_and_dead_letters_it_is_thrown_away(server: RabbitServer) -> None:
    topic, inbox = unique(), Inbox()
    async with brokers(server, 1, retry=Retry(attempts=1, dead_letter="")) as (one,):

        async def fail(message: Message) -> None:
            await inbox.deliver(message)
            raise ValueError("no")

        await one.subscribe(topic, fail)
        await one.publish(topic, event(0))
        await one.publish(topic, event(1))
        await inbox.has(2, DEADLINE)
        async with raw(server) as channel:
            with pytest.raises(aiormq.ChannelNotFoundEntity):
                await channel.queue_declare(f"{topic}.dead", passive=True)
    assert inbox.bodies == [event(0).body, event(1).body]


async def test_an_event_over_the_limit_is_a_dead_letter(server: RabbitServer) -> None:
    topic, inbox, letters = unique(), Inbox(), Inbox()
    async with brokers(server, 1, max_message=100, retry=Retry(attempts=1)) as (small,):
        await small.subscribe(topic, inbox.deliver, queue=topic)
        with pytest.raises(TooLarge):
            await small.publish(topic, Message({}, bytes(101)))
        async with brokers(
            server, 1, durable=True, settings=RabbitSettings(durable_exchange=False)
        ) as (big,):
            await big.subscribe(f"{topic}.dead", letters.deliver, queue=f"{topic}.dead")
            await big.publish(topic, Message({}, bytes(101)))
            await big.publish(topic, Message({}, bytes(100)))
            await inbox.has(1, DEADLINE)
            await letters.has(1, DEADLINE)
    assert [len(body) for body in inbox.bodies + letters.bodies] == [100, 101]


# Members, servers and connections that go


def _die_inside(url: str, topic: str, started: Any) -> None:
    """Take one event and never be heard of again."""

    async def deliver(message: Message) -> None:
        os._exit(9)

    async def main() -> None:
        broker = RabbitBroker(url, durable=True, settings=RabbitSettings(exchange="durable"))
        await broker.subscribe(topic, deliver, queue=topic)
        started.set()
        await asyncio.sleep(60)

    asyncio.run(main())


async def test_what_a_killed_member_had_goes_to_the_next(server: RabbitServer) -> None:
    topic, inbox = unique(), Inbox()
    context = multiprocessing.get_context("spawn")
    started = context.Event()
    victim = context.Process(target=_die_inside, args=(server.url, topic, started))
    victim.start()
    try:
        async with brokers(server, 1, durable=True) as (one,):
            assert await asyncio.to_thread(started.wait, DEADLINE)
            for number in range(20):
                await one.publish(topic, event(number))
            await asyncio.to_thread(victim.join, DEADLINE)
            assert victim.exitcode == 9
            await one.subscribe(topic, inbox.deliver, queue=topic)
            await inbox.has(20, DEADLINE)
            assert Counter(inbox.bodies) == Counter(event(n).body for n in range(20))
    finally:
        victim.kill()
        await asyncio.to_thread(victim.join)


async def publish_all(broker: Broker, topic: str, numbers: range) -> set[bytes]:
    """Publish events until the broker has taken each; returns those it took at first."""
    for number in numbers:
        while True:
            try:
                await broker.publish(topic, event(number))
                break
            except Unavailable:
                await asyncio.sleep(0.05)
    return {event(number).body for number in numbers}


def well(broker: RabbitBroker) -> bool:
    return broker.error is None


def ill(broker: RabbitBroker) -> bool:
    return isinstance(broker.error, Unavailable)


def have_all(inboxes: list[Inbox], sent: set[bytes]) -> bool:
    return set(count(inboxes)) == sent


async def test_a_restart_loses_nothing_of_a_durable_queue(
    server: RabbitServer, background: Background, record_property: Note
) -> None:
    """Nothing acknowledged is lost, whatever the server is doing; duplicates may be."""
    topic, inboxes = unique(), [Inbox(), Inbox()]
    async with brokers(server, 3, durable=True) as (publisher, *members):
        for member, inbox in zip(members, inboxes, strict=True):
            await member.subscribe(topic, inbox.deliver, queue=topic)
        sent: set[bytes] = set()
        for turn in range(RESTARTS):
            batch = range(turn * 200, turn * 200 + 200)
            publishing = asyncio.create_task(publish_all(publisher, topic, batch))
            await inboxes[0].has(turn * 10 + 1, DEADLINE)
            await asyncio.to_thread(background.run, server.stop)
            await settles(
                lambda: not any(map(well, (publisher, *members))), DEADLINE
            )  # called at once
            await asyncio.to_thread(background.run, server.start)
            async with asyncio.timeout(2 * DEADLINE):
                sent |= await publishing
            for broker in (publisher, *members):
                await settles(partial(well, broker), DEADLINE)
            await settles(partial(have_all, inboxes, sent), DEADLINE)
        # No consumer came back twice.
        listed = json.loads(await server.control("list_consumers", "--formatter", "json"))
        assert [one["queue_name"] for one in listed].count(topic) == 2
        assert publisher.link.connections == 1 + RESTARTS
        for body, times in count(inboxes).items():
            assert times <= 1 + RESTARTS, f"{body!r} came {times} times"
        record_property("restarts", RESTARTS)
        record_property("published", len(sent))
        record_property("published and lost", len(sent - set(count(inboxes))))
        record_property("duplicates", count(inboxes).total() - len(sent))


async def test_names_rabbitmq_cannot_have_are_refused(server: RabbitServer) -> None:
    async with brokers(server, 1) as (one,):
        for queue in ("größe", "amq.mine", "a\nb", "x" * 256):
            with pytest.raises(BadRequest):
                await one.subscribe("topic", Inbox().deliver, queue=queue)
        for topic in ("a.*", "#", "x" * 256):
            with pytest.raises(BadRequest):
                await one.publish(topic, event(0))


async def test_dead_letters_have_a_place_whatever_the_topic(server: RabbitServer) -> None:
    topic, inbox, letters = unique("größe"), Inbox(), Inbox()
    async with brokers(server, 1, retry=Retry(attempts=1)) as (one,):

        async def fail(message: Message) -> None:
            await inbox.deliver(message)
            raise ValueError("no")

        await one.subscribe(f"{topic}.dead", letters.deliver)
        await one.subscribe(topic, fail)
        await one.publish(topic, event(0))
        await letters.has(1, DEADLINE)


async def test_one_queue_for_several_topics_gives_each_its_own(server: RabbitServer) -> None:
    """Go Micro has one queue of a name, whatever the topics bound to it."""
    topics, queue = [unique(), unique()], unique()
    inboxes = [Inbox(), Inbox()]
    async with brokers(server, 2) as (one, other):
        for topic, inbox in zip(topics, inboxes, strict=True):
            await one.subscribe(topic, inbox.deliver, queue=queue)
        for number in range(20):
            for topic in topics:
                await other.publish(topic, Message({}, f"{topic} {number}".encode()))
        for topic, inbox in zip(topics, inboxes, strict=True):
            bodies = await inbox.has(20, DEADLINE)
            assert Counter(bodies) == Counter(f"{topic} {n}".encode() for n in range(20))


async def test_a_burst_waits_in_the_server(server: RabbitServer) -> None:
    """A subscriber that is slow holds no more than its prefetch; all of it arrives, in order."""
    topic, inbox = unique(), Inbox()
    async with brokers(server, 2, settings=RabbitSettings(prefetch=10)) as (one, other):
        subscription = await one.subscribe(topic, inbox.deliver)
        inbox.gate.clear()
        for number in range(1000):
            await other.publish(topic, event(number))
        await inbox.has(1, DEADLINE)
        await asyncio.sleep(0.1)
        assert len(subscription.line.events) <= 9
        inbox.gate.set()
        assert await inbox.has(1000, DEADLINE) == [event(n).body for n in range(1000)]
