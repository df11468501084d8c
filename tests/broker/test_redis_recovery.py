"""Both brokers on Redis come back: after restarts, freezes, cut connections, new passwords."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest

from shoal.broker.redis import RedisBroker
from shoal.broker.redis_streams import RedisSettings, RedisStreamsBroker, Retry, StreamSettings
from shoal.testing.conformance._broker import files, reached, settles, subscribed, unique
from tests.servers import Note, need
from tests.servers.redis import DurableRedisServer, RedisServer

from .redis_parts import QUICK, Tally, admin, becomes, nothing_pending, published, run

RESTARTS = int(os.environ.get("SHOAL_RESTARTS", "3"))

Made = RedisBroker | RedisStreamsBroker
Make = Callable[..., Made]

both = pytest.mark.parametrize("make", [RedisBroker, RedisStreamsBroker])


@pytest.fixture(autouse=True)
def _needed() -> None:
    need(RedisServer)


@both
async def test_it_is_there_again_after_every_restart(make: Make, record_property: Note) -> None:
    async with asyncio.timeout(60 + 20 * RESTARTS), RedisServer() as server:
        topic, tasks = unique(), len(asyncio.all_tasks())
        ears, mouth = make(server.address, settings=QUICK), make(server.address, settings=QUICK)
        try:
            inbox, _ = await subscribed(ears, topic)
            await reached(mouth, topic, inbox)
            running, open_files = len(asyncio.all_tasks()), files()
            for number in range(RESTARTS):
                await (server.stop() if number % 2 else server.kill())
                await becomes(lambda: ears.error is not None and mouth.error is not None)
                assert "cannot be used" in str(ears.error) or "broke" in str(ears.error)
                await server.start()
                await reached(mouth, topic, inbox, deadline=30)
                await becomes(lambda: ears.error is None and mouth.error is None)
                async with admin(server) as redis:
                    if make is RedisBroker:
                        assert await redis.pubsub_numsub(topic) == [(topic.encode(), 1)]
                    else:
                        assert len(await redis.xinfo_groups(f"shoal:{topic}")) == 1
            await settles(lambda: len(asyncio.all_tasks()) <= running)
            await settles(lambda: files() <= open_files)
            record_property("restarts", RESTARTS)
        finally:
            await ears.disconnect()
            await mouth.disconnect()
        await settles(lambda: len(asyncio.all_tasks()) <= tasks)


@both
async def test_a_server_that_hangs_is_noticed_and_used_again(make: Make) -> None:
    async with asyncio.timeout(90), RedisServer() as server:
        topic = unique()
        ears, mouth = make(server.address, settings=QUICK), make(server.address, settings=QUICK)
        try:
            inbox, _ = await subscribed(ears, topic)
            await reached(mouth, topic, inbox)
            server.freeze()
            try:
                await becomes(lambda: ears.error is not None and mouth.error is not None)
                assert "did not answer" in str(ears.error)
            finally:
                server.thaw()
            await reached(mouth, topic, inbox, deadline=30)
        finally:
            await ears.disconnect()
            await mouth.disconnect()


@both
async def test_connections_that_are_cut_are_made_again(make: Make) -> None:
    async with asyncio.timeout(90), RedisServer() as server, admin(server) as redis:
        topic = unique()
        ears, mouth = make(server.address, settings=QUICK), make(server.address, settings=QUICK)
        try:
            inbox, _ = await subscribed(ears, topic)
            for _ in range(5):
                await reached(mouth, topic, inbox)
                for kind in ("normal", "pubsub"):
                    await run(redis, "CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            await reached(mouth, topic, inbox)
        finally:
            await ears.disconnect()
            await mouth.disconnect()


@both
async def test_a_password_is_asked_for_at_every_connection(make: Make) -> None:
    async with asyncio.timeout(90), RedisServer() as server, admin(server) as redis:
        await run(redis, "ACL", "SETUSER", "app", "on", ">old", "~*", "&*", "+@all")
        known = "old"
        settings = RedisSettings(user="app", password=lambda: known, timeout=1.0, ping=0.3)
        topic, broker = unique(), make(server.address, settings=settings)
        try:
            inbox, _ = await subscribed(broker, topic)
            await reached(broker, topic, inbox)
            await run(redis, "ACL", "SETUSER", "app", "resetpass", ">new")
            await run(redis, "CLIENT", "KILL", "USER", "app")
            await becomes(lambda: "refuses user 'app'" in str(broker.error))
            known = "new"
            await reached(broker, topic, inbox)
            assert broker.error is None
        finally:
            await broker.disconnect()


async def test_nothing_that_was_taken_is_lost_when_the_server_crashes_mid_stream(
    record_property: Note,
) -> None:
    """Counted event by event; the log of what is acknowledged may end early, so some come twice."""
    async with asyncio.timeout(60 + 30 * RESTARTS), DurableRedisServer() as server:
        topic, tallies = unique(), [Tally(0.001) for _ in range(3)]
        made = [
            RedisStreamsBroker(
                server.address,
                settings=QUICK,
                prefetch=16,
                streams=StreamSettings(min_idle=1.0, forget=10.0),
            )
            for _ in range(4)
        ]
        *ears, mouth = made
        try:
            for broker, tally in zip(ears, tallies, strict=True):
                await broker.subscribe(topic, tally.deliver, queue="mail")
            taken: set[bytes] = set()
            for turn in range(RESTARTS):
                publishing = asyncio.create_task(
                    published(mouth, topic, range(turn * 500, turn * 500 + 500))
                )
                await asyncio.sleep(0.1)
                await server.kill()
                await server.start()
                taken |= await publishing
            assert len(taken) >= RESTARTS * 450, "publishing waits for the server to come back"
            await becomes(lambda: taken <= set().union(*(tally.got for tally in tallies)), 60)
            total = sum(tally.got.total() for tally in tallies)
            assert total <= len(taken) + RESTARTS * (3 * 2 * 16 + 50)
            arrived = set().union(*(tally.got for tally in tallies))
            record_property("restarts", RESTARTS)
            record_property("published", len(taken))
            record_property("published and lost", len(taken - arrived))
            record_property("duplicates", total - len(arrived))
            async with admin(server) as redis:
                await nothing_pending(redis, f"shoal:{topic}", "mail")
        finally:
            for broker in made:
                await broker.disconnect()


async def test_a_server_that_forgets_everything_gets_its_groups_again() -> None:
    async with asyncio.timeout(90), RedisServer() as server, admin(server) as redis:
        topic, tally, everyone = unique(), Tally(), Tally()
        broker = RedisStreamsBroker(
            server.address, settings=QUICK, retry=Retry(attempts=3, backoff=0.1)
        )
        try:
            await broker.subscribe(topic, tally.deliver, queue="mail")
            await broker.subscribe(topic, everyone.deliver)
            await published(broker, topic, range(50))
            await tally.has({b"49"})
            await redis.flushall()
            bodies = await published(broker, topic, range(100, 150))  # before the group is there
            await tally.has(bodies)
            await everyone.has(bodies)
            await redis.delete(f"shoal:{topic}")
            bodies = await published(broker, topic, range(200, 250))
            await tally.has(bodies)
            await everyone.has(bodies)
            await redis.xgroup_destroy(f"shoal:{topic}", "mail")
            bodies = await published(broker, topic, range(300, 350))
            await tally.has(bodies)
            assert max(tally.got.values()) == 1, "what was handled before came again"
            assert max(everyone.got.values()) == 1
        finally:
            await broker.disconnect()


async def test_handlers_that_run_while_the_server_is_away_are_acknowledged_later() -> None:
    async with asyncio.timeout(90), DurableRedisServer() as server:
        topic, broker = unique(), RedisStreamsBroker(server.address, settings=QUICK)
        try:
            inbox, subscription = await subscribed(broker, topic, "mail")
            inbox.gate.clear()
            taken = await published(broker, topic, range(20))
            await becomes(lambda: "20 held" in repr(subscription))
            await server.kill()
            inbox.gate.set()
            await inbox.has(20)
            await server.start()
            async with admin(server) as redis:
                key = f"shoal:{topic}"
                await nothing_pending(redis, key, "mail")
            assert sorted(inbox.bodies) == sorted(taken)
        finally:
            await broker.disconnect()
