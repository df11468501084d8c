"""Module broker is the suite every broker passes: what the contract's docstrings promise.

    class TestZebra(BrokerConformance):
        def make(self, *, unread: int = 1024) -> Broker:
            return ZebraBroker(self.server.address, unread=unread)

The tests are coroutines: run them with pytest-asyncio in auto mode.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from functools import partial

import pytest

from shoal.errors import BadRequest
from shoal.message import Header, Message
from shoal.testing.conformance._broker import (
    HOSTILE,
    count,
    event,
    files,
    have,
    passed,
    reached,
    running,
    settles,
    subscribed,
    unique,
)
from shoal.testing.conformance._broker_handlers import HandlerTests


class BrokerConformance(HandlerTests):
    """Two brokers of one backend: what one side publishes, the other's subscribers get.

    The attributes say what a backend truly cannot do; a suite of yours sets them.
    """

    # Connecting

    async def test_connecting_and_disconnecting_can_be_repeated(self) -> None:
        async with self.two() as (one, other):
            await one.disconnect()
            for _ in range(2):
                topic = unique()
                await one.connect()
                await one.connect()
                inbox, _ = await subscribed(one, topic)
                assert one.address
                await reached(other, topic, inbox, deadline=self.deadline)
                await one.disconnect()
                await one.disconnect()
                assert not one.address

    async def test_publishing_and_subscribing_connect(self) -> None:
        async with self.two() as (one, other):
            topic = unique()
            inbox, _ = await subscribed(one, topic)
            await reached(other, topic, inbox, deadline=self.deadline)

    async def test_a_repr_tells_what_it_is(self) -> None:
        async with self.two() as (one, _):
            _, subscription = await subscribed(one, unique())
            assert type(one).__name__ in repr(one)
            assert subscription.topic in repr(subscription)

    async def test_what_it_promises_is_what_is_tested(self) -> None:
        promised = self.make().guarantees
        assert (promised.groups, promised.ordered) == (self.queues, self.ordered)

    async def test_disconnecting_leaves_nothing(self) -> None:
        tasks, open_files = asyncio.all_tasks(), 0
        for _ in range(2):  # what an event loop opens for itself, it opens in the first round
            open_files = files()
            async with self.two() as (one, other):
                topic = unique()
                inbox, _ = await subscribed(one, topic)
                await subscribed(one, topic, "mail" if self.queues else "")
                await reached(other, topic, inbox, deadline=self.deadline)
        await settles(lambda: asyncio.all_tasks() <= tasks, self.deadline)
        await settles(lambda: files() <= open_files, self.deadline)

    async def test_disconnecting_finishes_deliveries_that_run(self) -> None:
        async with self.two() as (one, other):
            topic = unique()
            inbox, _ = await subscribed(one, topic)
            await reached(other, topic, inbox, deadline=self.deadline)
            inbox.gate.clear()
            await other.publish(topic, event(0))
            await inbox.has(1, self.deadline)
            async with running(one.disconnect()) as disconnecting:
                await asyncio.sleep(0.05)
                assert not disconnecting.done()
                inbox.gate.set()
                await disconnecting
            assert inbox.finished == 1

    # Who gets an event

    async def test_no_subscriber_is_no_error(self) -> None:
        async with self.two() as (one, _):
            await one.publish(unique(), event(0))

    async def test_every_subscriber_gets_every_event_once(self) -> None:
        async with self.two() as (one, other):
            topic = unique()
            inboxes = [(await subscribed(broker, topic))[0] for broker in (one, one, other)]
            await reached(one, topic, *inboxes, deadline=self.deadline)
            for number in range(20):
                await one.publish(topic, event(number))
            for inbox in inboxes:
                await inbox.has(20, self.deadline)
                await passed(one, topic, inbox, self.deadline)
                assert Counter(inbox.bodies) == Counter(event(n).body for n in range(20))

    async def test_one_of_a_queue_gets_an_event(self) -> None:
        async with self.two() as (one, other):
            topic = unique()
            members = await self.members(topic, "mail", one, one, other)
            if members is None:
                return
            await reached(other, topic, *members, deadline=self.deadline)
            numbers = range(120)
            for number in numbers:
                await other.publish(topic, event(number))
            await settles(partial(have, members, 120), self.deadline)
            await reached(other, topic, *members, deadline=self.deadline)
            assert count(members) == Counter(event(number).body for number in numbers)
            assert all(member.messages for member in members), "one got no share"

    async def test_every_queue_gets_an_event_and_so_do_all_without_one(self) -> None:
        async with self.two() as (one, other):
            topic = unique()
            mail = await self.members(topic, "mail", one, other)
            if mail is None:
                return
            log = await self.members(topic, "log", one) or []
            everyone = [(await subscribed(broker, topic))[0] for broker in (one, other)]
            await reached(one, topic, *mail, *log, *everyone, deadline=self.deadline)
            for number in range(10):
                await one.publish(topic, event(number))
            for group in (mail, log, *([inbox] for inbox in everyone)):
                await settles(partial(have, group, 10), self.deadline)
                assert count(group) == Counter(event(number).body for number in range(10))

    async def test_topics_are_apart(self) -> None:
        async with self.two() as (one, other):
            topic = unique()
            topics = [topic, f"{topic}.more", f"{topic}-more", topic.upper(), f"more.{topic}"]
            inboxes = [(await subscribed(one, each))[0] for each in topics]
            for each, inbox in zip(topics, inboxes, strict=True):
                await reached(other, each, inbox, deadline=self.deadline)
                await other.publish(each, Message({}, each.encode()))
            for each, inbox in zip(topics, inboxes, strict=True):
                await inbox.has(1, self.deadline)
                assert inbox.bodies == [each.encode()]

    @pytest.mark.parametrize("base", HOSTILE, ids=lambda base: ascii(base[:12]))
    async def test_a_hostile_topic_is_carried_or_refused(self, base: str) -> None:
        async with self.two() as (one, other):
            usual = unique()
            inbox, _ = await subscribed(one, usual)
            try:
                strange, _ = await subscribed(one, base)
                await reached(other, base, strange, deadline=self.deadline)
                await other.publish(base, event(1))
                await strange.has(1, self.deadline)
            except BadRequest:
                with contextlib.suppress(BadRequest):  # nobody can listen, so it may be nothing
                    await other.publish(base, event(1))
            await reached(other, usual, inbox, deadline=self.deadline)
            assert not inbox.messages

    # What arrives

    @pytest.mark.parametrize(
        "body", [b"", b"{}", bytes(range(256)), b"\xff\xfe\x00", "größe".encode(), b"\r\n\r\n"]
    )
    async def test_a_body_arrives_as_it_was(self, body: bytes) -> None:
        assert (await self.sent(Message({"Content-Type": "application/json"}, body))).body == body

    async def test_a_big_body_arrives(self) -> None:
        body = bytes(range(256)) * (self.biggest // 256)
        assert (await self.sent(Message({}, body))).body == body

    async def test_a_header_arrives_as_it_was(self) -> None:
        header = {
            "Content-Type": "application/json",
            "Micro-Id": "1-2-3",
            "X-Size": 'größe "日本" \\ {} <&>',
            "Empty": "",
            "Number": "007",
            "Long": "ä" * 2000,
        }
        sent = Message(dict(header), b"{}")
        got = await self.sent(sent)
        assert {name: got.header.get(name) for name in header} == header
        assert sent.header == header, "the publisher's own was changed"

    async def test_shared_headers_arrive_too(self) -> None:
        shared = Header({"Content-Type": "text/plain", "Kind": "shared"})
        got = await self.sent(Message({"Kind": "own"}, b"", shared))
        assert got.header["Content-Type"] == "text/plain"
        assert got.header["Kind"] == "own"

    async def test_the_message_of_a_subscriber_is_its_own(self) -> None:
        async with self.two() as (one, other):
            topic = unique()

            async def spoil(message: Message) -> None:
                message.header.clear()

            await one.subscribe(topic, spoil)
            inbox, _ = await subscribed(one, topic)
            await one.subscribe(topic, spoil)
            await reached(other, topic, inbox, deadline=self.deadline)
            message = Message({"Kind": "x"}, b"1")
            await other.publish(topic, message)
            await inbox.has(1, self.deadline)
            assert inbox.messages[0].header["Kind"] == "x"
            assert message.header == {"Kind": "x"}

    async def test_a_header_that_cannot_be_carried_is_refused(self) -> None:
        async with self.two() as (one, other):
            topic = unique()
            inbox, _ = await subscribed(one, topic)
            await reached(other, topic, inbox, deadline=self.deadline)
            for header in ({"bad name": "x"}, {"": "x"}, {"Kind": "\ud800"}):
                with contextlib.suppress(BadRequest):  # a broker that carries anything may
                    await other.publish(topic, Message(dict(header), b"bad"))
            await other.publish(topic, event(1))
            await inbox.until(lambda: event(1).body in inbox.bodies, self.deadline)

    async def test_events_keep_their_order(self) -> None:
        async with self.two() as (one, other):
            topic = unique()
            inbox, _ = await subscribed(one, topic)
            await reached(other, topic, inbox, deadline=self.deadline)
            expected = [event(number).body for number in range(200)]
            for number in range(200):
                await other.publish(topic, event(number))
            got = await inbox.has(200, self.deadline)
            assert (got if self.ordered else sorted(got)) == (
                expected if self.ordered else sorted(expected)
            )
