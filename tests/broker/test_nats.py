"""Tests of the broker over NATS, with a real server."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import ClassVar

import pytest
from nats.aio.client import Client

from shoal.broker import Broker
from shoal.broker.nats import NatsBroker, NatsSettings
from shoal.errors import BadRequest, TooLarge, Unavailable
from shoal.message import Message
from shoal.testing.conformance._broker import event, reached, settles, subscribed, unique
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


class TestNats(BrokerConformance):
    bounded: ClassVar[bool] = False  # NATS sends what comes, and the broker drops what is too much
    biggest: ClassVar[int] = 700 * 1024  # the server takes a mebibyte, and base64 adds a third

    @pytest.fixture(autouse=True)
    def _server(self, server: NatsServer) -> None:
        self.server = server

    def make(self, *, unread: int = 1024) -> Broker:
        return NatsBroker(self.server.url)


@asynccontextmanager
async def connected(*brokers: NatsBroker) -> AsyncIterator[None]:
    async with asyncio.timeout(120):
        try:
            yield
        finally:
            for broker in brokers:
                await broker.disconnect()


@asynccontextmanager
async def stranger(server: NatsServer) -> AsyncIterator[Client]:
    """Talk to the server as a program that is not Shoal."""
    client = Client()
    await client.connect(server.url)
    try:
        yield client
    finally:
        await client.close()


# The format


async def test_an_event_is_go_micros_json_at_the_subject_of_the_topic(server: NatsServer) -> None:
    broker = NatsBroker(server.url)
    async with connected(broker), stranger(server) as client:
        heard = await client.subscribe("events")
        await client.flush()
        await broker.publish("events", Message({"Content-Type": "application/json"}, b'{"a":1}\n'))
        message = await heard.next_msg()
        assert message.data == (
            b'{"Header":{"Micro-Topic":"events","Content-Type":"application/json"},'
            b'"Body":"eyJhIjoxfQo="}'
        )
        assert message.headers is None
        assert not message.reply


async def test_what_go_micro_sends_is_read(server: NatsServer) -> None:
    broker, topic = NatsBroker(server.url), unique()
    async with connected(broker), stranger(server) as client:
        inbox, _ = await subscribed(broker, topic)
        go = b'{"Header":{"Micro-ID":"7","Micro-Topic":"x","bad name":"y"},"Body":"eA=="}'
        for data in (go, b'{"Header":null,"Body":null}', b'{"body":"eA==","header":{}}'):
            await client.publish(topic, data)
        await inbox.has(3)
        assert inbox.messages[0] == Message({"Micro-Id": "7", "Micro-Topic": "x"}, b"x")
        assert inbox.messages[1:] == [Message(), Message({}, b"x")]


async def test_what_is_no_event_is_counted_and_nothing_else(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    broker, topic = NatsBroker(server.url, max_message=1000), unique()
    async with connected(broker), stranger(server) as client:
        inbox, _ = await subscribed(broker, topic)
        large = b'{"Body":"%s"}' % (b"AAAA" * 1000)
        for data in (b"", b"no JSON", b"[]", b'{"Body":1}', b"\xff", large):
            await client.publish(topic, data)
        await client.flush()
        await broker.publish(topic, event(1))
        await inbox.has(1)
        assert inbox.bodies == [event(1).body]
        assert broker.dropped == 6
        assert "dropped=6" in repr(broker)
        told = [one for one in caplog.records if topic in one.getMessage()]
        assert len(told) == 1


# Limits


async def test_a_body_over_the_limit_is_refused(server: NatsServer) -> None:
    broker = NatsBroker(server.url, max_message=100)
    async with connected(broker):
        with pytest.raises(TooLarge, match="101 bytes, the limit is 100"):
            await broker.publish("events", Message({}, b"x" * 101))
    broker = NatsBroker(server.url)
    async with connected(broker):
        with pytest.raises(TooLarge, match="too large for this NATS server, which takes 1048576"):
            await broker.publish("events", Message({}, bytes(1_000_000)))
        await broker.publish("events", Message({}, bytes(700_000)))


@pytest.mark.parametrize("topic", ["a.*", "a.>", "a b", ">", "a..b", "$JS.API.STREAM.LIST"])
async def test_wildcards_and_blanks_are_refused(server: NatsServer, topic: str) -> None:
    broker = NatsBroker(server.url)
    async with connected(broker):
        with pytest.raises(BadRequest):
            await broker.publish(topic, event(1))
        with pytest.raises(BadRequest):
            await subscribed(broker, topic)
        with pytest.raises(BadRequest):
            await subscribed(broker, "topic", "a queue")


async def test_what_a_slow_subscriber_has_no_room_for_is_counted_and_logged(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    slow, publisher, topic = NatsBroker(server.url, unread=100), NatsBroker(server.url), unique()
    async with connected(slow, publisher):
        inbox, _ = await subscribed(slow, topic)
        quick, _ = await subscribed(publisher, topic)
        await reached(publisher, topic, inbox, quick)
        inbox.gate.clear()
        for start in range(0, 1000, 100):
            events = (publisher.publish(topic, event(n)) for n in range(start, start + 100))
            await asyncio.gather(*events)
        await quick.has(1000)
        await settles(lambda: slow.dropped + 101 >= 1000)
        assert "was dropped" in caplog.text
        inbox.gate.set()
        await reached(publisher, topic, inbox)
        kept = [event(number).body for number in range(1000 - slow.dropped)]
        assert inbox.bodies == kept
        assert quick.bodies == [event(number).body for number in range(1000)]
        assert publisher.dropped == 0


# Coming back


async def test_what_is_published_through_restarts_is_told_to_be_lost_or_arrives_once(
    record_property: Note,
) -> None:
    need(NatsServer)
    async with NatsServer() as server:
        one, other = NatsBroker(server.url), NatsBroker(server.url)
        async with connected(one, other):
            inbox, _ = await subscribed(one, "events")
            mail, _ = await subscribed(one, "events", "mail")
            taken: list[bytes] = []
            unsure: list[bytes] = []
            stop = asyncio.Event()

            async def publish() -> None:
                for number in itertools.count():
                    if stop.is_set():
                        return
                    one_event = event(number)
                    try:
                        await other.publish("events", one_event)
                    except Unavailable:
                        unsure.append(one_event.body)
                    else:
                        taken.append(one_event.body)
                    await asyncio.sleep(0.001)

            publishing = asyncio.create_task(publish())
            for turn in range(RESTARTS):
                await settles(lambda: len(taken) > 50 * turn)  # noqa: B023
                await server.restart()
                await reached(other, "events", inbox, mail)
                assert one.error is None
            stop.set()
            await publishing
            await reached(other, "events", inbox, mail)
            for got in (inbox, mail):
                counts = Counter(got.bodies)
                assert set(counts.values()) == {1}
                # At most once: what was published while the subscriber was away is gone, however
                # much that is. That it gets events again was seen after each restart.
                assert set(counts) <= {*taken, *unsure}
                record_property("arrived", len(counts))
                record_property("published and lost", len(set(taken) - set(counts)))
                record_property("duplicates", counts.total() - len(counts))
            assert len(unsure) <= 2 * RESTARTS
            record_property("restarts", RESTARTS)
            record_property("published", len(taken))
            record_property("told to have failed", len(unsure))


async def test_its_state_is_visible_while_the_server_is_away() -> None:
    need(NatsServer)
    settings = NatsSettings(patience=0.2)
    async with NatsServer() as server:
        broker = NatsBroker(server.url, settings=settings)
        async with connected(broker):
            await subscribed(broker, "events")
            assert broker.error is None
            assert f"connected to {server.address}" in repr(broker)
            await server.stop()
            await settles(lambda: broker.error is not None)
            assert "not connected" in repr(broker)
            with pytest.raises(Unavailable):
                await broker.publish("events", event(1))
            await server.start()
            await settles(lambda: broker.error is None)
            await broker.publish("events", event(1))


async def test_nobody_there_is_one_sentence() -> None:
    broker = NatsBroker("me:secret@127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"no connection to NATS: 127\.0\.0\.1:1") as caught:
        await broker.connect()
    assert "secret" not in f"{caught.value!r} {broker!r}"
    await broker.disconnect()
