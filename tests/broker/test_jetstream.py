"""Tests of the broker over NATS JetStream, with a real server."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import itertools
import json
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest

from shoal.broker import Broker
from shoal.broker._jetstream_subscription import JetStreamSubscription
from shoal.broker.jetstream import JetStreamBroker, JetStreamSettings, NatsSettings, Retry
from shoal.errors import Unavailable
from shoal.message import Message
from shoal.testing.conformance._broker import event, settles, subscribed, unique
from shoal.testing.conformance.broker import BrokerConformance
from tests.servers import Background, Note, need
from tests.servers.nats import NatsServer

RESTARTS = int(os.environ.get("SHOAL_RESTARTS", "3"))


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    need(NatsServer)
    with Background(NatsServer()) as running:
        assert isinstance(running, NatsServer)
        yield running


class TestJetStream(BrokerConformance):
    bounded: ClassVar[bool] = False  # what a subscriber does not take yet is stored
    biggest: ClassVar[int] = 700 * 1024  # the server takes a mebibyte, and base64 adds a third

    @pytest.fixture(autouse=True)
    def _server(self, server: NatsServer) -> None:
        self.server = server

    def make(self, *, unread: int = 1024) -> Broker:
        return JetStreamBroker(self.server.url)


class TestEventsStreams(TestJetStream):
    """The same with events in the form of Go Micro's events streams."""

    def make(self, *, unread: int = 1024) -> Broker:
        return JetStreamBroker(self.server.url, streams=JetStreamSettings(events=True))


@asynccontextmanager
async def connected(*brokers: JetStreamBroker) -> AsyncIterator[None]:
    async with asyncio.timeout(120 + 20 * RESTARTS):
        try:
            yield
        finally:
            for broker in brokers:
                await broker.disconnect()


async def until(look: Callable[[], object]) -> None:
    await settles(lambda: bool(look()), 30)


QUICK = Retry(attempts=3, backoff=0.05)


# The formats


async def test_events_are_go_micros_json_in_a_stream_of_their_topic(server: NatsServer) -> None:
    broker, topic = JetStreamBroker(server.url), unique().replace(".", "-")
    async with connected(broker):
        await broker.publish(topic, Message({"Content-Type": "application/json"}, b'{"a":1}\n'))
        kept = (await broker.api.ask(f"STREAM.MSG.GET.{topic}", {"seq": 1}))["message"]
        assert kept["subject"] == topic
        assert json.loads(base64.b64decode(kept["data"])) == {
            "Header": {"Micro-Topic": topic, "Content-Type": "application/json"},
            "Body": "eyJhIjoxfQo=",
        }


async def test_events_streams_have_go_micros_other_json(server: NatsServer) -> None:
    streams = JetStreamSettings(events=True)
    broker, topic = JetStreamBroker(server.url, streams=streams), unique().replace(".", "-")
    async with connected(broker):
        inbox, _ = await subscribed(broker, topic)
        await broker.publish(topic, Message({"Micro-Id": "7", "Who": "me"}, b'{"a":1}\n'))
        kept = (await broker.api.ask(f"STREAM.MSG.GET.{topic}", {"seq": 1}))["message"]
        event = json.loads(base64.b64decode(kept["data"]))
        datetime.datetime.fromisoformat(event.pop("Timestamp"))
        assert event == {
            "ID": "7",
            "Topic": topic,
            "Metadata": {"Micro-Topic": topic, "Micro-Id": "7", "Who": "me"},
            "Payload": "eyJhIjoxfQo=",
        }
        (arrived,) = await inbox.has(1)
        assert arrived == b'{"a":1}\n'
        go = b"""{"ID":"8","Topic":"x","Timestamp":"2024-02-29T01:02:03.123456789+01:00",
            "Metadata":null,"Payload":"eyJhIjoyfQ=="}"""
        await broker.link.publish(topic, go)
        await inbox.has(2)
        assert inbox.messages[1] == Message(
            {
                "Content-Type": "application/json",
                "Micro-Topic": "x",
                "Micro-Id": "8",
                "Event-Timestamp": "2024-02-29T01:02:03.123456789+01:00",
            },
            b'{"a":2}',
        )


async def test_what_is_no_event_is_dropped_and_comes_no_more(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    for events in (False, True):
        streams = JetStreamSettings(events=events, ack_wait=0.5)
        broker, topic = JetStreamBroker(server.url, streams=streams), unique()
        async with connected(broker):
            inbox, _ = await subscribed(broker, topic, "mail")
            for data in (b"", b"no JSON", b"[]", b'{"Body":1,"Payload":1}', b"\xff"):
                await broker.link.publish(topic, data)
            await broker.publish(topic, event(1))
            await inbox.has(1)
            await asyncio.sleep(1)
            told = [one for one in caplog.records if topic in one.getMessage()]
            assert len(told) == 5
            assert inbox.bodies == [event(1).body]


async def test_a_stream_that_is_there_is_taken(server: NatsServer) -> None:
    broker, base = JetStreamBroker(server.url), unique()
    async with connected(broker):
        name = base.replace(".", "-")
        await broker.connect()
        config = {"name": name, "subjects": [f"{base}.>"], "storage": "memory"}
        await broker.api.ask(f"STREAM.CREATE.{name}", config)
        inboxes = [(await subscribed(broker, f"{base}.{one}", "mail"))[0] for one in "ab"]
        for one, inbox in zip("ab", inboxes, strict=True):
            await broker.publish(f"{base}.{one}", event(ord(one)))
            await inbox.has(1)
        assert await broker.api.stream(f"{base}.c") == name


# What comes again, and what is dead


async def test_events_of_a_queue_wait_for_it(server: NatsServer) -> None:
    broker, topic = JetStreamBroker(server.url), unique()
    async with connected(broker):
        _, subscription = await subscribed(broker, topic, "mail")
        await subscription.unsubscribe()
    publisher = JetStreamBroker(server.url)
    async with connected(publisher):
        for number in range(20):
            await publisher.publish(topic, event(number))
    async with connected(broker):
        inbox, _ = await subscribed(broker, topic, "mail")
        assert await inbox.has(20) == [event(number).body for number in range(20)]


async def test_a_new_queue_begins_with_new_events_or_with_all(server: NatsServer) -> None:
    topic = unique()
    for start, expected in (("new", [1]), ("all", [0, 1])):
        broker = JetStreamBroker(server.url, streams=JetStreamSettings(start=start))
        async with connected(broker):
            if start == "new":
                await broker.publish(topic, event(0))
            inbox, _ = await subscribed(broker, topic, start)
            if start == "new":
                await broker.publish(topic, event(1))
            assert await inbox.has(len(expected)) == [event(n).body for n in expected]
            await asyncio.sleep(0.1)
            assert len(inbox.messages) == len(expected)


async def test_an_event_that_fails_comes_again_and_others_pass_it(server: NatsServer) -> None:
    broker, topic, tried = JetStreamBroker(server.url, retry=QUICK), unique(), Counter[bytes]()

    async def deliver(message: Message) -> None:
        tried[message.body] += 1
        if message.body == event(3).body and tried[message.body] < 3:
            raise ValueError("not yet")

    async with connected(broker):
        for queue in ("mail", ""):
            tried.clear()
            subscription = await broker.subscribe(topic, deliver, queue=queue)
            for number in range(10):
                await broker.publish(topic, event(number))
            await until(lambda: tried.total() == 12)
            assert tried[event(3).body] == 3
            await subscription.unsubscribe()


async def test_a_dead_event_is_kept_with_the_reason(server: NatsServer) -> None:
    broker, topic = JetStreamBroker(server.url, retry=QUICK), unique()
    tried: list[str] = []

    async def deliver(message: Message) -> None:
        tried.append(message.header["Kind"])
        raise ValueError("it hurts")

    async with connected(broker):
        graves, _ = await subscribed(broker, f"{topic}.dead")
        await broker.subscribe(topic, deliver, queue="mail")
        await broker.publish(topic, Message({"Kind": "x"}, b"poison"))
        await graves.has(1)
        await asyncio.sleep(0.3)
        assert tried == ["x"] * 3
        assert graves.bodies == [b"poison"]
        header = graves.messages[0].header
        assert header["Kind"] == "x"
        assert header["Dead-Letter-Topic"] == topic
        assert header["Dead-Letter-Queue"] == "mail"
        assert header["Dead-Letter-Attempts"] == "3"
        assert "it hurts" in header["Dead-Letter-Reason"]


POISON = """
import asyncio, os, sys
from shoal.broker.jetstream import JetStreamBroker, JetStreamSettings

async def main():
    async def deliver(message):
        print(message.body.decode(), flush=True)
        if message.body == b"poison":
            os._exit(7)
    broker = JetStreamBroker(sys.argv[1], streams=JetStreamSettings(ack_wait=0.5))
    await broker.subscribe(sys.argv[2], deliver, queue="mail")
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_an_event_that_kills_its_subscriber_is_dead_in_the_end(server: NatsServer) -> None:
    streams = JetStreamSettings(ack_wait=0.5)
    broker, topic = JetStreamBroker(server.url, retry=QUICK, streams=streams), unique()
    async with connected(broker):
        graves, _ = await subscribed(broker, f"{topic}.dead")
        killed = 0
        for _ in range(QUICK.attempts):
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", POISON, server.url, topic, stdout=asyncio.subprocess.PIPE
            )
            assert process.stdout is not None
            try:
                if not killed:
                    assert await process.stdout.readline() == b"ready\n"
                    await broker.publish(topic, Message({}, b"before"))
                    await broker.publish(topic, Message({}, b"poison"))
                    assert await process.stdout.readline() == b"before\n"
                assert b"poison\n" in await process.stdout.read()
                assert await process.wait() == 7
                killed += 1
            finally:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        await broker.publish(topic, Message({}, b"after"))
        inbox, _ = await subscribed(broker, topic, "mail")
        await graves.has(1)
        await inbox.has(1)
        assert inbox.bodies == [b"after"]
        assert graves.bodies == [b"poison"]
        assert graves.messages[0].header["Dead-Letter-Attempts"] == "3"


async def test_a_handler_that_takes_long_is_waited_for(server: NatsServer) -> None:
    streams = JetStreamSettings(ack_wait=0.6)
    broker, topic = JetStreamBroker(server.url, streams=streams), unique()
    async with connected(broker):
        inbox, _ = await subscribed(broker, topic, "mail")
        inbox.gate.clear()
        await broker.publish(topic, event(1))
        await inbox.has(1)
        await asyncio.sleep(2)
        inbox.gate.set()
        await broker.publish(topic, event(2))
        await inbox.has(2)
        assert inbox.bodies == [event(1).body, event(2).body]


async def test_who_leaves_gives_back_what_it_has_not_begun(server: NatsServer) -> None:
    one, other, topic = JetStreamBroker(server.url), JetStreamBroker(server.url), unique()
    async with connected(one, other):
        slow, subscription = await subscribed(one, topic, "mail")
        slow.gate.clear()
        for number in range(30):
            await other.publish(topic, event(number))
        await slow.has(1)
        quick, _ = await subscribed(other, topic, "mail")
        leaving = asyncio.create_task(subscription.unsubscribe())
        await quick.has(29)  # long before the 30 s are over in which they would come again
        slow.gate.set()
        await leaving
        assert Counter(slow.bodies + quick.bodies) == Counter(event(n).body for n in range(30))


async def test_what_waits_at_a_slow_subscriber_is_bounded(server: NatsServer) -> None:
    broker = JetStreamBroker(server.url, prefetch=16)
    publisher, topic, count = JetStreamBroker(server.url), unique(), 2000
    async with connected(broker, publisher):
        inbox, subscription = await subscribed(broker, topic, "mail")
        inbox.gate.clear()
        for start in range(0, count, 100):
            events = (publisher.publish(topic, event(n)) for n in range(start, start + 100))
            await asyncio.gather(*events)
        assert "15 events waiting" in repr(subscription)
        inbox.gate.set()
        bodies = await inbox.has(count, 60)  # in any order, as they were published at once
        assert Counter(bodies) == Counter(event(number).body for number in range(count))


async def test_deliveries_run_at_the_same_time_if_they_shall(server: NatsServer) -> None:
    broker, topic = JetStreamBroker(server.url, concurrency=8), unique()
    async with connected(broker):
        inbox, _ = await subscribed(broker, topic, "mail")
        inbox.gate.clear()
        for number in range(20):
            await broker.publish(topic, event(number))
        await inbox.has(8)
        await asyncio.sleep(0.1)
        assert inbox.running == 8
        inbox.gate.set()
        await inbox.has(20)


# Coming back


async def test_no_event_is_lost_through_restarts(record_property: Note) -> None:
    need(NatsServer)
    async with NatsServer() as server:
        streams = JetStreamSettings(ack_wait=2)
        one = JetStreamBroker(server.url, streams=streams, prefetch=16)
        other = JetStreamBroker(server.url, streams=streams)
        async with connected(one, other):
            mail, _ = await subscribed(one, "events", "mail")
            everyone, _ = await subscribed(one, "events")
            taken: list[bytes] = []
            unsure: list[bytes] = []
            stop = asyncio.Event()

            async def publish() -> None:
                for number in itertools.count():
                    if stop.is_set():
                        return
                    try:
                        await other.publish("events", event(number))
                    except Unavailable:
                        unsure.append(event(number).body)
                    else:
                        taken.append(event(number).body)

            publishing = asyncio.create_task(publish())
            tasks = 0
            for turn in range(RESTARTS):
                await until(lambda: len(taken) > 100 * turn)  # noqa: B023
                await (server.kill() if turn % 2 else server.stop())
                await asyncio.sleep(0.2)
                await server.start()
                await until(lambda: one.error is None and other.error is None)
                tasks = tasks or len(asyncio.all_tasks())
            stop.set()
            await publishing
            for got in (mail, everyone):
                await until(lambda: set(taken) <= set(got.bodies))  # noqa: B023
                assert set(got.bodies) <= {*taken, *unsure}
                # At least once: what was in flight when the server went may come twice.
                assert len(got.bodies) <= len(taken) + len(unsure) + RESTARTS * 32
                record_property("arrived", len(set(got.bodies)))
                record_property("published and lost", len(set(taken) - set(got.bodies)))
                record_property("duplicates", len(got.bodies) - len(set(got.bodies)))
            record_property("restarts", RESTARTS)
            record_property("published", len(taken))
            record_property("told to have failed", len(unsure))
            assert len(asyncio.all_tasks()) < tasks


async def test_a_frozen_server_loses_nothing() -> None:
    need(NatsServer)
    settings = NatsSettings(timeout=0.5, ping=0.2, patience=0.5)
    async with NatsServer() as server:
        broker = JetStreamBroker(server.url, settings=settings)
        async with connected(broker):
            inbox, _ = await subscribed(broker, "events", "mail")
            for number in range(10):
                await broker.publish("events", event(number))
            server.freeze()
            await until(lambda: broker.error)
            with pytest.raises(Unavailable):
                await broker.publish("events", event(99))
            server.thaw()
            await until(lambda: broker.error is None)
            for number in range(10, 20):
                await broker.publish("events", event(number))
            await until(lambda: {event(n).body for n in range(20)} <= set(inbox.bodies))


async def test_a_consumer_that_was_deleted_is_made_again(server: NatsServer) -> None:
    streams = JetStreamSettings(ack_wait=1.5)
    broker, topic = JetStreamBroker(server.url, streams=streams), unique()
    async with connected(broker):
        mail, first = await subscribed(broker, topic, "mail")
        everyone, second = await subscribed(broker, topic)
        await broker.publish(topic, event(0))
        for inbox in (mail, everyone):
            await inbox.has(1)
        stream = await broker.api.stream(topic)
        names = (await broker.api.ask(f"CONSUMER.NAMES.{stream}"))["consumers"]
        assert len(names) == 2
        for name in names:
            await broker.api.delete_consumer(stream, name)
        await broker.publish(topic, event(1))
        for subscription, inbox in ((first, mail), (second, everyone)):
            assert isinstance(subscription, JetStreamSubscription)
            await inbox.has(2)

            def restored(one: JetStreamSubscription = subscription) -> bool:
                return one.restored == 1

            await until(restored)
            assert inbox.bodies == [event(0).body, event(1).body]
        await broker.api.ask(f"STREAM.DELETE.{stream}")
        await broker.publish(topic, event(2))
        for inbox in (mail, everyone):
            await inbox.until(lambda: event(2).body in inbox.bodies)  # noqa: B023


# What is refused


async def test_a_server_without_jetstream_is_one_sentence() -> None:
    need(NatsServer)

    class Plain(NatsServer):
        def configure(self, config: str) -> None:
            (self.folder / "config").write_text(f'listen: "{self.address}"\n')

    async with Plain() as server:
        broker = JetStreamBroker(server.url)
        async with connected(broker):
            with pytest.raises(Unavailable, match="runs without JetStream: start it with -js"):
                await broker.connect()
            with pytest.raises(Unavailable, match="runs without JetStream"):
                await broker.publish("events", event(1))


async def test_a_consumer_of_another_kind_is_left_alone(server: NatsServer) -> None:
    broker, topic = JetStreamBroker(server.url), unique()
    async with connected(broker):
        await broker.publish(topic, event(0))
        stream = await broker.api.stream(topic)
        pull = {"durable_name": "mail", "ack_policy": "explicit"}
        await broker.api.make_consumer(stream, pull)
        with pytest.raises(Unavailable, match=r"the consumer 'mail' of the stream .* another kind"):
            await subscribed(broker, topic, "mail")


def test_settings_nobody_can_keep_are_refused() -> None:
    with pytest.raises(ValueError, match="'new' or 'all'"):
        JetStreamSettings(start="old")
    with pytest.raises(ValueError, match="ack_wait"):
        JetStreamSettings(ack_wait=0)
    with pytest.raises(ValueError, match="prefetch"):
        JetStreamBroker(concurrency=100)
