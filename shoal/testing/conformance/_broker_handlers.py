"""Module _broker_handlers is the part of the suite of brokers on deliveries: ends and load."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from functools import partial

import pytest

from shoal import context
from shoal.broker import Subscription
from shoal.errors import BadRequest, Unavailable
from shoal.message import Message
from shoal.testing.conformance._broker import (
    BrokerSuite,
    Inbox,
    event,
    have,
    passed,
    reached,
    running,
    settles,
    subscribed,
    unique,
)


class HandlerTests(BrokerSuite):
    """How deliveries run, fail and end."""

    # Handlers

    @pytest.mark.parametrize("error", [ValueError("no"), BadRequest("no"), asyncio.CancelledError])
    async def test_an_error_in_a_handler_ends_nothing(
        self, error: Exception | type[BaseException], caplog: pytest.LogCaptureFixture
    ) -> None:
        async with self.two() as (one, other):
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
        async with self.two() as (one, other):
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
        async with self.two() as (one, other):
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
        async with self.two() as (one, other):
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
        async with self.two() as (one, other):
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
        async with self.two() as (one, other):
            topic = unique()
            for queue in ["", "mail", "", "mail"] if self.queues else ["", ""]:
                inbox, subscription = await subscribed(one, topic, queue)
                await reached(other, topic, inbox, deadline=self.deadline)
                await subscription.unsubscribe()

    async def test_who_leaves_a_queue_takes_no_share(self) -> None:
        async with self.two() as (one, other):
            topic = unique()
            members = await self.members(topic, "mail", one, other)
            if members is None:
                return
            extra, subscription = await subscribed(one, topic, "mail")
            await reached(other, topic, extra, *members, deadline=self.deadline)
            await subscription.unsubscribe()
            for number in range(50):
                await other.publish(topic, event(number))
            await settles(partial(have, members, 50), self.deadline)
            assert not extra.messages

    # Load

    async def test_a_slow_subscriber_makes_publishers_wait(self) -> None:
        async with self.two(unread=4) as (one, other):
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
        async with self.two(unread=4) as (one, other):
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
        async with self.two(unread=4) as (one, other):
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
        async with self.two() as (one, other):
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
