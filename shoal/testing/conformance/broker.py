"""Module broker is the suite every broker passes: what the contract's docstrings promise.

    class TestZebra(BrokerConformance):
        def make(self, *, unread: int = 1024) -> Broker:
            return ZebraBroker(self.server.address, unread=unread)

The tests are coroutines: run them with pytest-asyncio in auto mode.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import ClassVar

import pytest

from shoal import context
from shoal.broker import Broker, Subscription
from shoal.errors import BadRequest, Unavailable
from shoal.message import Header, Message
from shoal.testing.conformance._broker import (
    HOSTILE,
    Inbox,
    count,
    event,
    files,
    passed,
    reached,
    running,
    settles,
    subscribed,
    unique,
)


class BrokerConformance:
    """Two brokers of one backend: what one side publishes, the other's subscribers get.

    The attributes say what a backend truly cannot do; a suite of yours sets them.
    """

    deadline: ClassVar[float] = 20.0
    """Seconds until an event surely has arrived."""
    queues: ClassVar[bool] = True
    """Whether subscribers can share a topic's events; if not, a queue is a BadRequest."""
    ordered: ClassVar[bool] = True
    """Whether a subscription gets the events of one publisher in order."""
    bounded: ClassVar[bool] = True
    """Whether publishers wait for a subscriber with `unread` events waiting."""
    shared: ClassVar[bool] = False
    """Whether both sides are the same object."""
    biggest: ClassVar[int] = 1 << 20
    """Bytes of the largest body to try."""

    @abstractmethod
    def make(self, *, unread: int = 1024) -> Broker:
        """Return a broker; all that one test makes reach each other.

        `unread` is how many events may wait for a subscription, where `bounded`.
        """

    # Connecting

    async def test_connecting_and_disconnecting_can_be_repeated(self) -> None:
        async with self._two() as (one, other):
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
        async with self._two() as (one, other):
            topic = unique()
            inbox, _ = await subscribed(one, topic)
            await reached(other, topic, inbox, deadline=self.deadline)

    async def test_a_repr_tells_what_it_is(self) -> None:
        async with self._two() as (one, _):
            _, subscription = await subscribed(one, unique())
            assert type(one).__name__ in repr(one)
            assert subscription.topic in repr(subscription)

    async def test_disconnecting_leaves_nothing(self) -> None:
        tasks, open_files = asyncio.all_tasks(), 0
        for _ in range(2):  # what an event loop opens for itself, it opens in the first round
            open_files = files()
            async with self._two() as (one, other):
                topic = unique()
                inbox, _ = await subscribed(one, topic)
                await subscribed(one, topic, "mail" if self.queues else "")
                await reached(other, topic, inbox, deadline=self.deadline)
        await settles(lambda: asyncio.all_tasks() <= tasks, self.deadline)
        await settles(lambda: files() <= open_files, self.deadline)

    async def test_disconnecting_finishes_deliveries_that_run(self) -> None:
        async with self._two() as (one, other):
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
        async with self._two() as (one, _):
            await one.publish(unique(), event(0))

    async def test_every_subscriber_gets_every_event_once(self) -> None:
        async with self._two() as (one, other):
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
        async with self._two() as (one, other):
            topic = unique()
            members = await self._queue(topic, "mail", one, one, other)
            if members is None:
                return
            await reached(other, topic, *members, deadline=self.deadline)
            numbers = range(120)
            for number in numbers:
                await other.publish(topic, event(number))
            await settles(partial(_have, members, 120), self.deadline)
            await reached(other, topic, *members, deadline=self.deadline)
            assert count(members) == Counter(event(number).body for number in numbers)
            assert all(member.messages for member in members), "one got no share"

    async def test_every_queue_gets_an_event_and_so_do_all_without_one(self) -> None:
        async with self._two() as (one, other):
            topic = unique()
            mail = await self._queue(topic, "mail", one, other)
            if mail is None:
                return
            log = await self._queue(topic, "log", one) or []
            everyone = [(await subscribed(broker, topic))[0] for broker in (one, other)]
            await reached(one, topic, *mail, *log, *everyone, deadline=self.deadline)
            for number in range(10):
                await one.publish(topic, event(number))
            for group in (mail, log, *([inbox] for inbox in everyone)):
                await settles(partial(_have, group, 10), self.deadline)
                assert count(group) == Counter(event(number).body for number in range(10))

    async def test_topics_are_apart(self) -> None:
        async with self._two() as (one, other):
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
        async with self._two() as (one, other):
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
        assert (await self._sent(Message({"Content-Type": "application/json"}, body))).body == body

    async def test_a_big_body_arrives(self) -> None:
        body = bytes(range(256)) * (self.biggest // 256)
        assert (await self._sent(Message({}, body))).body == body

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
        got = await self._sent(sent)
        assert {name: got.header.get(name) for name in header} == header
        assert sent.header == header, "the publisher's own was changed"

    async def test_shared_headers_arrive_too(self) -> None:
        shared = Header({"Content-Type": "text/plain", "Kind": "shared"})
        got = await self._sent(Message({"Kind": "own"}, b"", shared))
        assert got.header["Content-Type"] == "text/plain"
        assert got.header["Kind"] == "own"

    async def test_the_message_of_a_subscriber_is_its_own(self) -> None:
        async with self._two() as (one, other):
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
        async with self._two() as (one, other):
            topic = unique()
            inbox, _ = await subscribed(one, topic)
            await reached(other, topic, inbox, deadline=self.deadline)
            for header in ({"bad name": "x"}, {"": "x"}, {"Kind": "\ud800"}):
                with contextlib.suppress(BadRequest):  # a broker that carries anything may
                    await other.publish(topic, Message(dict(header), b"bad"))
            await other.publish(topic, event(1))
            await inbox.until(lambda: event(1).body in inbox.bodies, self.deadline)

    async def test_events_keep_their_order(self) -> None:
        async with self._two() as (one, other):
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

    # Handlers

    @pytest.mark.parametrize("error", [ValueError("no"), BadRequest("no"), asyncio.CancelledError])
    async def test_an_error_in_a_handler_ends_nothing(
        self, error: Exception | type[BaseException], caplog: pytest.LogCaptureFixture
    ) -> None:
        async with self._two() as (one, other):
            topic = unique()
            inbox, failed = Inbox(), 0

            async def deliver(message: Message) -> None:
                nonlocal failed
                if message.body == event(0).body:
                    failed += 1
                    raise error
                await inbox.deliver(message)

            await one.subscribe(topic, deliver)
            await reached(other, topic, inbox, deadline=self.deadline)
            await other.publish(topic, event(0))
            await other.publish(topic, event(1))
            await inbox.has(1, self.deadline)
            await settles(lambda: failed > 0, self.deadline)
            assert inbox.bodies == [event(1).body]
            assert any(topic in record.getMessage() for record in caplog.records)

    async def test_a_delivery_inherits_nothing_from_the_subscriber(self) -> None:
        async with self._two() as (one, other):
            topic = unique()
            inbox = Inbox()
            seen: list[tuple[float | None, dict[str, str]]] = []

            async def deliver(message: Message) -> None:
                seen.append((context.remaining(), context.metadata()))
                await inbox.deliver(message)

            with context.deadline(self.deadline), context.with_metadata({"Kind": "x"}):
                await one.subscribe(topic, deliver)
            await reached(other, topic, inbox, deadline=self.deadline)
            assert seen[0] == (None, {})

    async def test_a_handler_may_publish_and_subscribe(self) -> None:
        async with self._two() as (one, other):
            first, second = unique(), unique()
            inbox = Inbox()
            subscriptions: list[Subscription] = []

            async def deliver(message: Message) -> None:
                if not subscriptions:
                    subscriptions.append(await one.subscribe(second, inbox.deliver))
                await one.publish(second, message)

            await one.subscribe(first, deliver)
            await reached(other, first, inbox, deadline=self.deadline)

    async def test_unsubscribing_finishes_what_runs_and_starts_nothing(self) -> None:
        async with self._two() as (one, other):
            topic = unique()
            inbox, subscription = await subscribed(one, topic)
            witness, _ = await subscribed(one, topic)
            await reached(other, topic, inbox, witness, deadline=self.deadline)
            inbox.gate.clear()
            for number in range(5):
                await other.publish(topic, event(number))
            await inbox.has(1, self.deadline)
            async with running(subscription.unsubscribe()) as unsubscribing:
                await asyncio.sleep(0.05)
                assert not unsubscribing.done()
                started = len(inbox.messages)
                inbox.gate.set()
                await unsubscribing
            assert inbox.finished == len(inbox.messages) == started
            probes = inbox.probes
            await subscription.unsubscribe()
            await reached(other, topic, witness, deadline=self.deadline)
            await witness.has(5, self.deadline)
            assert (len(inbox.messages), inbox.probes) == (started, probes)

    async def test_a_handler_may_unsubscribe_itself(self) -> None:
        async with self._two() as (one, other):
            topic = unique()
            done = asyncio.Event()
            calls = 0

            async def once(message: Message) -> None:
                nonlocal calls
                calls += 1
                # In a task of its own, as servers run their handlers.
                await asyncio.create_task(subscription.unsubscribe())
                done.set()

            subscription = await one.subscribe(topic, once)
            witness, _ = await subscribed(one, topic)
            await reached(other, topic, witness, deadline=self.deadline)
            async with asyncio.timeout(self.deadline):
                await done.wait()
            await passed(other, topic, witness, self.deadline)
            assert calls == 1

    async def test_subscribing_again_works(self) -> None:
        async with self._two() as (one, other):
            topic = unique()
            for queue in ["", "mail", "", "mail"] if self.queues else ["", ""]:
                inbox, subscription = await subscribed(one, topic, queue)
                await reached(other, topic, inbox, deadline=self.deadline)
                await subscription.unsubscribe()

    async def test_who_leaves_a_queue_takes_no_share(self) -> None:
        async with self._two() as (one, other):
            topic = unique()
            members = await self._queue(topic, "mail", one, other)
            if members is None:
                return
            extra, subscription = await subscribed(one, topic, "mail")
            await reached(other, topic, extra, *members, deadline=self.deadline)
            await subscription.unsubscribe()
            for number in range(50):
                await other.publish(topic, event(number))
            await settles(partial(_have, members, 50), self.deadline)
            assert not extra.messages

    # Load

    async def test_a_slow_subscriber_makes_publishers_wait(self) -> None:
        async with self._two(unread=4) as (one, other):
            topic = unique()
            inbox, _ = await subscribed(one, topic)
            await reached(other, topic, inbox, deadline=self.deadline)
            inbox.gate.clear()
            published, total = 0, 300

            async def publish() -> None:
                nonlocal published
                for number in range(total):
                    await other.publish(topic, event(number))
                    published += 1

            async with running(publish()) as publishing:
                await inbox.has(1, self.deadline)
                if self.bounded:
                    await asyncio.sleep(0.2)
                    assert not publishing.done()
                    assert published < total
                else:
                    await asyncio.wait([publishing], timeout=self.deadline)
                    assert published == total
                inbox.gate.set()
                async with asyncio.timeout(self.deadline):
                    await publishing
            await inbox.has(total, self.deadline)
            assert Counter(inbox.bodies) == Counter(event(n).body for n in range(total))

    async def test_a_publisher_can_be_cancelled(self) -> None:
        async with self._two(unread=4) as (one, other):
            topic = unique()
            inbox, _ = await subscribed(one, topic)
            await reached(other, topic, inbox, deadline=self.deadline)
            inbox.gate.clear()

            async def publish() -> None:
                while True:
                    await other.publish(topic, event(0))
                    await asyncio.sleep(0)

            publishing = asyncio.create_task(publish())
            await inbox.has(1, self.deadline)
            publishing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await publishing
            inbox.gate.set()
            await reached(other, topic, inbox, deadline=self.deadline)

    async def test_disconnecting_releases_publishers(self) -> None:
        async with self._two(unread=4) as (one, other):
            topic = unique()
            inbox, _ = await subscribed(one, topic)
            await reached(other, topic, inbox, deadline=self.deadline)
            inbox.gate.clear()

            async def publish() -> None:
                with contextlib.suppress(Unavailable):
                    for number in range(300):
                        await other.publish(topic, event(number))

            async with running(publish()) as publishing:
                await inbox.has(1, self.deadline)
                async with running(one.disconnect()) as disconnecting:
                    await asyncio.sleep(0.05)
                    inbox.gate.set()
                    async with asyncio.timeout(self.deadline):
                        await disconnecting
                        await publishing

    async def test_many_publish_at_the_same_time(self) -> None:
        async with self._two() as (one, other):
            topic = unique()
            inbox, _ = await subscribed(one, topic)
            await reached(one, topic, inbox, deadline=self.deadline)
            await reached(other, topic, inbox, deadline=self.deadline)
            brokers = [one, other]
            async with asyncio.timeout(self.deadline):
                await asyncio.gather(
                    *(brokers[number % 2].publish(topic, event(number)) for number in range(200))
                )
            await inbox.has(200, self.deadline)
            assert Counter(inbox.bodies) == Counter(event(n).body for n in range(200))

    @contextlib.asynccontextmanager
    async def _two(self, *, unread: int = 1024) -> AsyncIterator[tuple[Broker, Broker]]:
        async with asyncio.timeout(6 * self.deadline):
            one = self.make(unread=unread)
            other = one if self.shared else self.make(unread=unread)
            try:
                yield one, other
            finally:
                await one.disconnect()
                await other.disconnect()

    async def _queue(self, topic: str, queue: str, *brokers: Broker) -> list[Inbox] | None:
        """Return the members of a queue, None if this broker has none, and says so."""
        if self.queues:
            return [(await subscribed(broker, topic, queue))[0] for broker in brokers]
        with pytest.raises(BadRequest):
            await subscribed(brokers[0], topic, queue)
        return None

    async def _sent(self, message: Message) -> Message:
        async with self._two() as (one, other):
            topic = unique()
            inbox, _ = await subscribed(one, topic)
            await reached(other, topic, inbox, deadline=self.deadline)
            await other.publish(topic, message)
            await inbox.has(1, self.deadline)
            return inbox.messages[0]


def _have(inboxes: Sequence[Inbox], number: int) -> bool:
    return count(inboxes).total() >= number
