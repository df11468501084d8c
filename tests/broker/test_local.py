"""Tests of the lines that events wait in, and of how deliveries end."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from shoal.broker._local import Limits
from shoal.broker.memory import MemoryBroker
from shoal.errors import Unavailable
from shoal.message import Message
from shoal.testing.conformance._broker import event, settles, subscribed


@pytest.mark.parametrize("wrong", [{"unread": 0}, {"concurrency": 0}])
def test_limits_that_let_nothing_through_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="room"):
        Limits(**wrong)


async def test_a_publisher_waits_for_room_only_so_long() -> None:
    broker = MemoryBroker(unread=2, timeout=0.05)
    stuck, _ = await subscribed(broker, "events")
    well, _ = await subscribed(broker, "events")
    stuck.gate.clear()
    for number in range(3):
        await broker.publish("events", event(number))
        await well.has(number + 1)
    with pytest.raises(Unavailable, match="made no room"):
        await broker.publish("events", event(3))
    await well.has(4)
    stuck.gate.set()
    assert await stuck.has(3) == [event(number).body for number in range(3)]
    await broker.disconnect()


async def test_who_waits_for_room_comes_first() -> None:
    broker = MemoryBroker(unread=1)
    inbox, _ = await subscribed(broker, "events")
    inbox.gate.clear()
    publishers = []
    for number in range(10):
        publishers.append(asyncio.create_task(broker.publish("events", event(number))))
        await asyncio.sleep(0)
    publishers[5].cancel()
    inbox.gate.set()
    await asyncio.gather(*publishers, return_exceptions=True)
    expected = [event(number).body for number in range(10) if number != 5]
    assert await inbox.has(9) == expected
    await broker.disconnect()


async def test_a_free_member_of_a_queue_takes_what_a_busy_one_cannot() -> None:
    broker = MemoryBroker()
    busy, subscription = await subscribed(broker, "events", "mail")
    free, _ = await subscribed(broker, "events", "mail")
    busy.gate.clear()
    for number in range(100):
        await broker.publish("events", event(number))
    await settles(lambda: len(busy.messages) + len(free.messages) == 100)
    assert len(busy.messages) == 1
    busy.gate.set()
    await subscription.unsubscribe()
    await broker.publish("events", event(100))
    await free.has(100)
    assert max(Counter(busy.bodies + free.bodies).values()) == 1
    await broker.disconnect()


async def test_members_of_a_queue_get_equal_shares_when_they_are_equally_fast() -> None:
    broker = MemoryBroker()
    members = [(await subscribed(broker, "events", "mail"))[0] for _ in range(4)]
    for number in range(400):
        await broker.publish("events", event(number))
    await settles(lambda: sum(len(member.messages) for member in members) == 400)
    assert all(80 <= len(member.messages) <= 120 for member in members)
    await broker.disconnect()


async def test_deliveries_run_at_the_same_time_if_told_to() -> None:
    broker = MemoryBroker(concurrency=3)
    inbox, _ = await subscribed(broker, "events")
    inbox.gate.clear()
    for number in range(5):
        await broker.publish("events", event(number))
    await settles(lambda: inbox.running == 3)
    inbox.gate.set()
    await inbox.has(5)
    await broker.disconnect()


async def test_a_delivery_that_does_not_end_is_cancelled_after_the_grace() -> None:
    broker = MemoryBroker(grace=0.05)
    inbox, subscription = await subscribed(broker, "events")
    inbox.gate.clear()
    await broker.publish("events", event(0))
    await inbox.has(1)
    async with asyncio.timeout(20):
        await subscription.unsubscribe()
    assert (inbox.running, inbox.finished) == (0, 0)


async def test_cancelling_the_unsubscribing_cancels_what_runs() -> None:
    broker = MemoryBroker()
    inbox, subscription = await subscribed(broker, "events")
    inbox.gate.clear()
    await broker.publish("events", event(0))
    await inbox.has(1)
    unsubscribing = asyncio.create_task(subscription.unsubscribe())
    await asyncio.sleep(0)
    unsubscribing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await unsubscribing
    await settles(lambda: inbox.running == 0)


async def test_handlers_may_disconnect_the_broker() -> None:
    broker = MemoryBroker()
    done = asyncio.Event()

    async def deliver(message: Message) -> None:
        await broker.disconnect()
        done.set()

    await broker.subscribe("events", deliver)
    await broker.subscribe("events", deliver)
    await broker.publish("events", event(0))
    async with asyncio.timeout(20):
        await done.wait()
    await settles(lambda: len(asyncio.all_tasks()) == 1)


async def test_a_handler_that_feeds_itself_lets_others_run() -> None:
    broker = MemoryBroker()
    calls = 0

    async def deliver(message: Message) -> None:
        nonlocal calls
        calls += 1
        await broker.publish("events", message)

    await broker.subscribe("events", deliver)
    await broker.publish("events", event(0))
    async with asyncio.timeout(20):
        for _ in range(5):
            await asyncio.sleep(0)
    assert calls
    await broker.disconnect()


async def test_unsubscribing_lets_publishers_go_that_wait_for_room() -> None:
    broker = MemoryBroker(unread=1)
    inbox, subscription = await subscribed(broker, "events")
    inbox.gate.clear()
    publishers = [asyncio.create_task(broker.publish("events", event(n))) for n in range(5)]
    await inbox.has(1)
    unsubscribing = asyncio.create_task(subscription.unsubscribe())
    async with asyncio.timeout(20):
        await asyncio.gather(*publishers)
        inbox.gate.set()
        await unsubscribing
    assert inbox.bodies == [event(0).body]


async def test_nothing_is_kept_of_topics_that_had_subscribers() -> None:
    broker = MemoryBroker()
    for number in range(100):
        _, first = await subscribed(broker, f"reply-{number}")
        _, second = await subscribed(broker, f"reply-{number}", "mail")
        await first.unsubscribe()
        await second.unsubscribe()
    assert repr(broker) == "MemoryBroker(Subscribers([]))"


async def test_two_brokers_know_nothing_of_each_other() -> None:
    one, other = MemoryBroker(), MemoryBroker()
    inbox, _ = await subscribed(one, "events")
    await other.publish("events", event(0))
    await one.publish("events", event(1))
    assert await inbox.has(1) == [event(1).body]
    await one.disconnect()
