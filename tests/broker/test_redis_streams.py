"""The broker on Redis streams, against a real server."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from shoal.broker import Broker
from shoal.broker.redis_streams import (
    RedisStreamsBroker,
    Retry,
    StreamSettings,
    _version,
)
from shoal.errors import BadRequest, TooLarge, Unavailable
from shoal.message import Message
from shoal.testing.conformance._broker import event, subscribed, unique
from shoal.testing.conformance.broker import BrokerConformance
from tests.servers import Background, need
from tests.servers.redis import RedisServer

from .redis_parts import Tally, admin, becomes, held, nothing_pending, published, run

QUICK = StreamSettings(min_idle=0.5, forget=3.0, grace=2.0)
FAST = Retry(attempts=3, backoff=0.1)

# A process that prints what it gets, and dies as its second word says.
DOOMED = """
import asyncio, os, sys
from shoal.broker.redis_streams import RedisStreamsBroker, StreamSettings

async def main():
    broker = RedisStreamsBroker(sys.argv[1], prefetch=8, streams=StreamSettings(min_idle=0.5))

    async def deliver(message):
        print(message.body.decode(), flush=True)
        if message.body == b"5" and sys.argv[3] == "dies":
            os._exit(9)
        await asyncio.sleep(60 if sys.argv[3] == "hangs" else 0)

    await broker.subscribe(sys.argv[2], deliver, queue="mail")
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    need(RedisServer)
    running = RedisServer()
    with Background(running):
        yield running


class TestRedisStreams(BrokerConformance):
    bounded = False  # events wait in Redis, and the oldest go when a stream is full

    @pytest.fixture(autouse=True)
    def _server(self, server: RedisServer) -> None:
        self.address = server.address

    def make(self, *, unread: int = 1024) -> Broker:
        return RedisStreamsBroker(self.address)


@asynccontextmanager
async def brokers(server: RedisServer, count: int, **settings: Any) -> AsyncIterator[Any]:
    settings = {"streams": QUICK, "retry": FAST, **settings}
    made = [RedisStreamsBroker(server.address, **settings) for _ in range(count)]
    async with asyncio.timeout(120):
        try:
            yield made
        finally:
            for broker in made:
                await broker.disconnect()


@asynccontextmanager
async def doomed(
    server: RedisServer, topic: str, how: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    words = (sys.executable, "-c", DOOMED, server.address, topic, how)
    process = await asyncio.create_subprocess_exec(*words, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert await process.stdout.readline() == b"ready\n"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


# What happens to what a process held that died


async def test_a_consumer_killed_inside_a_handler_loses_nothing(server: RedisServer) -> None:
    topic, tally = unique(), Tally()
    async with brokers(server, 1) as (broker,), doomed(server, topic, "hangs") as process:
        taken = await published(broker, topic, range(30))
        assert process.stdout is not None
        assert await process.stdout.readline() == b"0\n"
        process.kill()
        await process.wait()
        await broker.subscribe(topic, tally.deliver, queue="mail")
        await tally.has(taken)
        async with admin(server) as redis:
            await nothing_pending(redis, f"shoal:{topic}", "mail")
        assert set(tally.got.values()) == {1}


async def test_an_event_that_kills_its_consumers_becomes_a_dead_letter(
    server: RedisServer,
) -> None:
    topic, tally, dead = unique(), Tally(), Tally()
    handled: Counter[bytes] = Counter()
    async with brokers(server, 1) as (broker,):
        await broker.subscribe(f"{topic}.dead", dead.deliver)
        for number in range(3):
            async with doomed(server, topic, "dies") as process:
                if not number:
                    await published(broker, topic, range(10))
                assert process.stdout is not None
                async with asyncio.timeout(30):
                    handled.update((await process.stdout.read()).split())
                    assert await process.wait() == 9
        await broker.subscribe(topic, tally.deliver, queue="mail")
        await dead.has({b"5"})
        assert dead.messages[0].header["Dead-Letter-Attempts"] == "3"
        assert "ended while they handled it" in dead.messages[0].header["Dead-Letter-Reason"]
        await tally.has({b"%d" % number for number in range(10)} - handled.keys())
        assert (handled[b"5"], tally.got[b"5"]) == (3, 0)
        assert list(dead.got) == [b"5"], "those that waited behind it had done nothing"


async def test_a_name_that_stays_gets_back_at_once_what_it_held(server: RedisServer) -> None:
    topic, tally = unique(), Tally()
    named = StreamSettings(min_idle=1000.0, forget=3000.0, consumer="worker", grace=0.05)
    async with brokers(server, 1, streams=named) as (first,):
        inbox, _ = await subscribed(first, topic, "mail")
        inbox.gate.clear()
        taken = await published(first, topic, range(5))
        await inbox.has(1)
        # As after a crash: nothing is given back.
        for keeper in (first._keeper, *(one._reader for one in first._subscriptions)):
            await keeper.close()
        async with brokers(server, 1, streams=named) as (second,):
            await second.subscribe(topic, tally.deliver, queue="mail")
            await tally.has(taken, 10)
            async with admin(server) as redis:
                await nothing_pending(redis, f"shoal:{topic}", "mail")
                (consumer,) = await redis.xinfo_consumers(f"shoal:{topic}", "mail")
                assert consumer["name"] == b"worker.1"
        inbox.gate.set()


async def test_what_waits_for_a_handler_goes_to_the_next_at_once(server: RedisServer) -> None:
    topic, tally = unique(), Tally()
    slow = StreamSettings(min_idle=1000.0, forget=3000.0)
    async with brokers(server, 2, streams=slow) as (one, other):
        inbox, subscription = await subscribed(one, topic, "mail")
        inbox.gate.clear()
        taken = await published(one, topic, range(20))
        await becomes(lambda: "20 held" in repr(subscription))
        await other.subscribe(topic, tally.deliver, queue="mail")
        leaving = asyncio.create_task(subscription.unsubscribe())
        await asyncio.sleep(0.1)
        inbox.gate.set()
        await leaving
        await tally.has(taken - {b"0"}, 10)
        assert inbox.bodies == [b"0"]
        assert tally.got.total() == 19
        assert all(count == 1 for count in await _counts(server, topic))


async def _counts(server: RedisServer, topic: str) -> list[int]:
    async with admin(server) as redis:
        pending = await redis.xpending_range(f"shoal:{topic}", "mail", "-", "+", 100)
        return [int(one["times_delivered"]) for one in pending]


async def test_dead_consumers_and_groups_are_removed(server: RedisServer) -> None:
    topic, key = unique(), ""
    async with brokers(server, 2) as (broker, silent):
        key = f"shoal:{topic}"
        async with doomed(server, topic, "lives"):
            await published(broker, topic, range(3))
        await silent.subscribe(topic, Tally().deliver)
        for keeper in (silent._keeper, *(one._reader for one in silent._subscriptions)):
            await keeper.close()  # as if it were dead
        async with admin(server) as redis:
            await broker.subscribe(topic, Tally().deliver, queue="mail")
            assert len(await redis.xinfo_consumers(key, "mail")) == 2
            assert len(await redis.xinfo_groups(key)) == 2
            async with asyncio.timeout(20):
                while len(await redis.xinfo_groups(key)) > 1:  # noqa: ASYNC110  # in Redis
                    await asyncio.sleep(0.1)
                while len(await redis.xinfo_consumers(key, "mail")) > 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)


async def test_who_leaves_is_gone_from_redis(server: RedisServer) -> None:
    topic = unique()
    async with brokers(server, 1) as (broker,), admin(server) as redis:
        for queue in ("mail", ""):
            inbox, subscription = await subscribed(broker, topic, queue)
            await broker.publish(topic, event(1))
            await inbox.has(1)
            await subscription.unsubscribe()
        assert [one["name"] for one in await redis.xinfo_groups(f"shoal:{topic}")] == [b"mail"]
        assert await redis.xinfo_consumers(f"shoal:{topic}", "mail") == []


async def test_a_handler_slower_than_min_idle_keeps_its_event(server: RedisServer) -> None:
    topic, slow, quick = unique(), Tally(2.0), Tally(2.0)
    async with brokers(server, 2) as (one, other):
        await one.subscribe(topic, slow.deliver, queue="mail")
        await other.subscribe(topic, quick.deliver, queue="mail")
        taken = await published(one, topic, range(4))
        await becomes(lambda: taken <= {*slow.got, *quick.got})
        assert slow.got.total() + quick.got.total() == 4


# Events that fail


async def test_a_poison_event_comes_again_later_and_ends_as_a_dead_letter(
    server: RedisServer,
) -> None:
    topic, tally, dead = unique(), Tally(), Tally()
    tried: list[float] = []

    async def deliver(message: Message) -> None:
        if message.body == b"7":
            tried.append(asyncio.get_running_loop().time())
            message.header.clear()  # its own: the next attempt has them all again
            raise ValueError("cannot be\nread")
        await tally.deliver(message)

    async with brokers(server, 1, retry=Retry(attempts=3, backoff=0.3)) as (broker,):
        await broker.subscribe(f"{topic}.dead", dead.deliver)
        await broker.subscribe(topic, deliver, queue="mail")
        taken = await published(broker, topic, range(20))
        await tally.has(taken - {b"7"}, 10)
        await dead.has({b"7"}, 20)
        assert dead.messages[0].header == {
            "Micro-Topic": topic,
            "Content-Type": "text/plain",
            "Dead-Letter-Topic": topic,
            "Dead-Letter-Queue": "mail",
            "Dead-Letter-Attempts": "3",
            "Dead-Letter-Reason": "cannot be read",
        }
        first, second, third = tried
        assert second - first >= 0.27
        assert third - second >= 0.54
        assert set(tally.got.values()) == {1}
        async with admin(server) as redis:
            await nothing_pending(redis, f"shoal:{topic}", "mail")


async def test_all_that_fail_at_once_come_again(server: RedisServer) -> None:
    topic, tally = unique(), Tally()
    failed: set[bytes] = set()

    async def deliver(message: Message) -> None:
        if message.body not in failed:
            failed.add(message.body)
            raise ValueError("not now")
        await tally.deliver(message)

    async with brokers(server, 1, prefetch=3, concurrency=2) as (broker,):
        await broker.subscribe(topic, deliver, queue="mail")
        taken = await published(broker, topic, range(40))
        await tally.has(taken)
        assert set(tally.got.values()) == {1}


async def test_an_event_that_is_none_is_a_dead_letter_at_once(server: RedisServer) -> None:
    topic, tally, dead = unique(), Tally(), Tally()
    async with brokers(server, 1, max_message=300_000) as (broker,), admin(server) as redis:
        await broker.subscribe(f"{topic}.dead", dead.deliver)
        await broker.subscribe(topic, tally.deliver, queue="mail")
        strange: list[dict[str, str | bytes]] = [
            {"body": "no header"},
            {"header": "{}"},
            {"header": "[]", "body": "no object"},
            {"header": b"\xff", "body": "no text"},
            {"header": "{}", "body": "x" * 300_001},
        ]
        for fields in strange:
            await redis.xadd(f"shoal:{topic}", fields)  # type: ignore[arg-type]  # invariant dict
        await broker.publish(topic, event(1))
        await tally.has({event(1).body})
        await becomes(lambda: len(dead.messages) == 5)
        reasons = [one.header["Dead-Letter-Reason"] for one in dead.messages]
        assert sum("it is no event" in reason for reason in reasons) == 4
        assert any("over the limit: 300001 bytes" in reason for reason in reasons)
        await nothing_pending(redis, f"shoal:{topic}", "mail")


async def test_without_a_topic_for_them_dead_letters_are_dropped(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    topic = unique()

    async def fail(message: Message) -> None:
        raise ValueError("no")

    retry = Retry(attempts=1, dead_letter="")
    async with brokers(server, 1, retry=retry) as (broker,), admin(server) as redis:
        await broker.subscribe(topic, fail, queue="mail")
        await broker.publish(topic, event(1))
        await becomes(lambda: "is dropped: no" in caplog.text)
        await nothing_pending(redis, f"shoal:{topic}", "mail")
        assert not await redis.exists(f"shoal:{topic}.dead")


# How much


async def test_a_burst_for_slow_subscribers_waits_in_redis(server: RedisServer) -> None:
    topic, count = unique(), 5_000
    async with brokers(server, 3, prefetch=8, concurrency=2) as (one, other, publisher):
        inboxes = [await subscribed(broker, topic, "mail") for broker in (one, other)]
        for inbox, _ in inboxes:
            inbox.gate.clear()
        for start in range(0, count, 500):
            events = (
                publisher.publish(topic, event(number)) for number in range(start, start + 500)
            )
            await asyncio.gather(*events)
        await becomes(lambda: all("8 held" in repr(one) for _, one in inboxes))
        assert all(inbox.running == 2 for inbox, _ in inboxes)
        async with admin(server) as redis:
            assert (await redis.xpending(f"shoal:{topic}", "mail"))["pending"] == 16
            for inbox, _ in inboxes:
                inbox.gate.set()
            await becomes(lambda: sum(len(inbox.messages) for inbox, _ in inboxes) >= count, 60)
            await nothing_pending(redis, f"shoal:{topic}", "mail")
        counts = Counter(body for inbox, _ in inboxes for body in inbox.bodies)
        assert set(counts) == {event(number).body for number in range(count)}
        # At least once: what is held is taken over if a busy machine lets its holder not say in
        # time that it is alive.
        assert sum(counts.values()) - count <= 16


async def test_a_stream_is_trimmed_and_what_was_lost_is_told(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    topic, tally = unique(), Tally()
    short = StreamSettings(length=100, min_idle=0.5, forget=10.0)
    async with brokers(server, 1, streams=short) as (broker,), admin(server) as redis:
        async with doomed(server, topic, "hangs") as process:
            await published(broker, topic, range(8))
            assert process.stdout is not None
            await process.stdout.readline()
            await held(redis, f"shoal:{topic}", "mail", 8)
        await published(broker, topic, range(100, 1100))
        assert await redis.xlen(f"shoal:{topic}") < 400
        await broker.subscribe(topic, tally.deliver, queue="mail")
        await tally.has({b"1099"})
        told = re.compile(r"(\d+) events of '\S+' were trimmed unhandled")
        await becomes(lambda: sum(map(int, told.findall(caplog.text))) == 8)
        assert tally.got.total() < 400


async def test_a_queue_waits_while_nobody_is_there(server: RedisServer) -> None:
    topic, tally = unique(), Tally()
    async with brokers(server, 1) as (broker,):
        _, subscription = await subscribed(broker, topic, "mail")
        await subscription.unsubscribe()
        taken = await published(broker, topic, range(50))
        await broker.subscribe(topic, tally.deliver, queue="mail")
        await tally.has(taken)
        assert set(tally.got.values()) == {1}


async def test_a_user_may_be_allowed_little(server: RedisServer) -> None:
    topic, tally = unique(), Tally()
    async with admin(server) as redis:
        await run(redis, "ACL", "SETUSER", "app", "on", ">pw", "-@all", "+@stream", "~shoal:*")
        broker = RedisStreamsBroker(f"app:pw@{server.address}", streams=QUICK, retry=FAST)
        async with asyncio.timeout(60):
            try:
                await broker.subscribe(topic, tally.deliver, queue="mail")
                await tally.has(await published(broker, topic, range(20)))
                await asyncio.sleep(2)  # for a look at dead consumers, which it may not remove
                assert broker.error is None
            finally:
                await broker.disconnect()
        await nothing_pending(redis, f"shoal:{topic}", "mail")


# What is refused


async def test_what_it_cannot_do_is_said_at_once(server: RedisServer) -> None:
    async with brokers(server, 1, max_message=10) as (broker,), admin(server) as redis:
        with pytest.raises(TooLarge, match="11 bytes, the limit is 10"):
            await broker.publish("events", Message({}, b"x" * 11))
        with pytest.raises(TooLarge, match="header"):
            await broker.publish("events", Message({"A": "x" * 200_000}))
        with pytest.raises(BadRequest, match="cannot begin with broadcast:"):
            await subscribed(broker, "events", "broadcast:x")
        await redis.set("shoal:taken", "by somebody else")
        for attempt in (broker.publish("taken", event(1)), subscribed(broker, "taken", "mail")):
            with pytest.raises(BadRequest, match="Redis refuses: WRONGTYPE"):
                await attempt
        await run(redis, "CONFIG", "SET", "maxmemory", "1mb")
        try:
            with pytest.raises(Unavailable, match="used memory"):
                await broker.publish("events", event(1))
        finally:
            await run(redis, "CONFIG", "SET", "maxmemory", "0")


async def test_a_cluster_is_refused() -> None:
    need(RedisServer)
    server = RedisServer("--cluster-enabled", "yes")
    server.flags += ("--cluster-port", str(server.more_ports[0]))
    async with server:
        broker = RedisStreamsBroker(server.address)
        with pytest.raises(Unavailable, match="is a cluster, which redis-streams does not use"):
            await broker.connect()
        await broker.disconnect()


@pytest.mark.parametrize("hello", [b"*2\r\n+version\r\n+6.0.16\r\n", b"-ERR unknown command\r\n"])
async def test_a_server_that_is_too_old_is_refused(hello: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            words = [await reader.readline() for _ in range(2 * int(head[1:]))]
            writer.write(hello if words[1] == b"HELLO\r\n" else b"+OK\r\n")
        writer.close()
        await writer.wait_closed()
        ended.set()

    ended = asyncio.Event()
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as other, asyncio.timeout(20):
        port = other.sockets[0].getsockname()[1]
        broker = RedisStreamsBroker(f"127.0.0.1:{port}")
        said = f"127.0.0.1:{port} is too old: redis-streams needs 6.2 or newer"
        with pytest.raises(Unavailable, match=said):
            await broker.connect()
        await broker.disconnect()
        await ended.wait()


def test_versions_are_compared_as_numbers() -> None:
    assert _version("6.0.16") < (6, 2) <= _version("6.2.0") < _version("7.0.15") < _version("10.0")
    assert _version("df-1.2") >= (6, 2), "one that counts in another way is tried"


@pytest.mark.parametrize(
    "make",
    [
        lambda: RedisStreamsBroker(concurrency=2, prefetch=1),
        lambda: StreamSettings(length=0),
        lambda: StreamSettings(min_idle=0),
        lambda: StreamSettings(min_idle=10, forget=20),
    ],
)
def test_settings_that_contradict_each_other_are_refused(make: Any) -> None:
    with pytest.raises(ValueError, match="need"):
        make()
