"""The broker on Redis's publish and subscribe, against a real server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from shoal.broker import Broker
from shoal.broker.redis import RedisBroker
from shoal.errors import BadRequest, Forbidden, TooLarge, Unavailable
from shoal.message import Message
from shoal.testing.conformance._broker import event, reached, subscribed, unique
from shoal.testing.conformance.broker import BrokerConformance
from shoal.tls import Tls
from tests.servers import Background, need
from tests.servers.redis import RedisServer
from tests.test_tls import Authority

from .redis_parts import Tally, admin, becomes, run


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    need(RedisServer)
    running = RedisServer()
    with Background(running):
        yield running


class TestRedis(BrokerConformance):
    queues = False
    bounded = False  # what is too much for a subscriber waits in Redis, up to its limit

    @pytest.fixture(autouse=True)
    def _server(self, server: RedisServer) -> None:
        self.address = server.address

    def make(self, *, unread: int = 1024) -> Broker:
        return RedisBroker(self.address)


@asynccontextmanager
async def brokers(*made: RedisBroker) -> AsyncIterator[None]:
    async with asyncio.timeout(120):
        try:
            yield
        finally:
            for broker in made:
                await broker.disconnect()


# The format


async def test_an_event_is_go_micros_json_on_the_channel_of_the_topic(server: RedisServer) -> None:
    broker = RedisBroker(server.address)
    async with brokers(broker), admin(server) as redis, redis.pubsub() as listener:
        await listener.subscribe("events")
        await listener.get_message(timeout=5)
        await broker.publish("events", Message({"Content-Type": "application/json"}, b'{"a":1}\n'))
        heard = await listener.get_message(timeout=5)
        assert heard is not None
        assert heard["data"] == (
            b'{"Header":{"Micro-Topic":"events","Content-Type":"application/json"},'
            b'"Body":"eyJhIjoxfQo="}'
        )


async def test_what_is_no_event_is_logged_and_nothing_else(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    broker, topic = RedisBroker(server.address, max_message=1000), unique()
    async with brokers(broker), admin(server) as redis:
        inbox, _ = await subscribed(broker, topic)
        envelope = {"Header": {"Micro-ID": "7"}, "Body": "eA=="}
        for data in (b"", b"no JSON", b"[]", b'{"Body":1}', b"\xff", b"x" * 10_000_000):
            await redis.publish(topic, data)
        await redis.publish(topic, json.dumps(envelope))
        await inbox.has(1)
        assert inbox.messages[0] == Message({"Micro-Id": "7"}, b"x")
        told = [one.getMessage() for one in caplog.records if topic in one.getMessage()]
        assert len(told) == 6
        assert "10000000 bytes" in told[-1]


async def test_a_body_over_the_limit_is_refused(server: RedisServer) -> None:
    broker = RedisBroker(server.address, max_message=100)
    async with brokers(broker):
        with pytest.raises(TooLarge, match="101 bytes, the limit is 100"):
            await broker.publish("events", Message({}, b"x" * 101))


async def test_a_queue_is_refused_with_the_name_of_the_broker_that_has_them() -> None:
    broker = RedisBroker("127.0.0.1:1")  # before anything is connected
    with pytest.raises(BadRequest, match="use redis-streams"):
        await subscribed(broker, "events", "mail")


# Slow subscribers


async def test_a_burst_for_a_slow_subscriber_waits_in_redis_and_holds_up_nobody(
    server: RedisServer,
) -> None:
    count, topic = 20_000, unique()
    slow, quick, publisher = (RedisBroker(server.address, unread=64) for _ in range(3))
    async with brokers(slow, quick, publisher):
        inbox, subscription = await subscribed(slow, topic)
        tally = Tally()
        await quick.subscribe(topic, tally.deliver)
        inbox.gate.clear()
        for start in range(0, count, 500):
            events = (
                publisher.publish(topic, event(number)) for number in range(start, start + 500)
            )
            await asyncio.gather(*events)
        await becomes(lambda: tally.got.total() >= count)
        assert "64 events waiting" in repr(subscription)
        inbox.gate.set()
        await inbox.has(count, 60)
        assert inbox.bodies == [event(number).body for number in range(count)]
        assert slow.error is None, "waiting is no sign of a dead server"


async def test_one_that_is_too_slow_for_redis_misses_events_and_then_gets_new_ones(
    server: RedisServer,
) -> None:
    need(RedisServer)
    limit = ("--client-output-buffer-limit", "pubsub", "256kb", "128kb", "1")
    async with RedisServer(*limit) as small:
        slow, publisher, topic = (
            RedisBroker(small.address, unread=8),
            RedisBroker(small.address),
            "",
        )
        topic = unique()
        async with brokers(slow, publisher):
            inbox, _ = await subscribed(slow, topic)
            await reached(publisher, topic, inbox)
            inbox.gate.clear()
            body = b"x" * 100_000
            for _ in range(200):
                await publisher.publish(topic, Message({}, body))
            inbox.gate.set()
            await reached(publisher, topic, inbox, deadline=30)
            assert 0 < len(inbox.messages) < 200


# Who may, and where


async def test_a_password_from_the_address_or_the_settings() -> None:
    need(RedisServer)
    async with RedisServer("--requirepass", "s3cret word") as server:
        good = RedisBroker(f":s3cret%20word@{server.address}/3")
        wrong, none = RedisBroker(f":wr0ng@{server.address}"), RedisBroker(server.address)
        async with brokers(good, wrong, none):
            inbox, _ = await subscribed(good, "events")
            await reached(good, "events", inbox)
            assert "s3cret" not in repr(good)
            with pytest.raises(Unavailable, match="refuses user 'default'") as caught:
                await wrong.connect()
            assert "wr0ng" not in str(caught.value) + repr(wrong)
            with pytest.raises(Unavailable, match="wants a password"):
                await none.connect()


async def test_a_user_may_do_what_the_acl_says() -> None:
    need(RedisServer)
    async with RedisServer() as server, admin(server) as redis:
        await run(
            redis,
            "ACL",
            "SETUSER",
            "ears",
            "on",
            ">pw",
            "-@all",
            "+subscribe",
            "+ping",
            "allchannels",
        )
        broker = RedisBroker(f"redis://ears:pw@{server.address}")
        async with brokers(broker):
            await subscribed(broker, "events")
            with pytest.raises(Forbidden, match=r"Redis refuses: .*publish"):
                await broker.publish("events", event(1))


async def test_tls_with_certificates_of_both(tmp_path: Path) -> None:
    need(RedisServer)
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.issue("server")
    mine, my_key = authority.issue("client")
    server = RedisServer()
    secure, plain = server.port, server.port = server.port, server.more_ports[0]
    server.flags = (
        "--tls-port", str(secure), "--tls-cert-file", certificate, "--tls-key-file", key,
        "--tls-ca-cert-file", authority.file, "--tls-auth-clients", "yes",
    )  # fmt: skip
    stranger = Authority(tmp_path, "stranger")
    async with server:
        address = f"rediss://127.0.0.1:{secure}"
        good = RedisBroker(
            address, tls=Tls(ca_file=authority.file, cert_file=mine, key_file=my_key)
        )
        distrustful = RedisBroker(address, tls=Tls(ca_file=stranger.file))
        nameless = RedisBroker(address, tls=Tls(ca_file=authority.file))
        unencrypted = RedisBroker(f"127.0.0.1:{secure}")
        async with brokers(good, distrustful, nameless, unencrypted):
            inbox, _ = await subscribed(good, "events")
            await reached(good, "events", inbox)
            with pytest.raises(Unavailable, match="is not trusted"):
                await distrustful.connect()
            for broker in (nameless, unencrypted):
                with pytest.raises(Unavailable, match=f"127.0.0.1:{secure} cannot be used"):
                    await broker.connect()
    assert plain


async def test_nobody_there_is_one_sentence() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1 cannot be used: .*[Cc]onnect"):
        await RedisBroker("127.0.0.1:1").connect()
    with pytest.raises(Unavailable, match=r"127.0.0.1:1 .*; .*127.0.0.1:2 "):
        await RedisBroker("127.0.0.1:1,127.0.0.1:2").publish("events", event(1))


async def test_the_primary_of_several_addresses_is_used_and_found_again_after_a_failover(
    server: RedisServer,
) -> None:
    async with RedisServer("--replicaof", "127.0.0.1", str(server.port)) as replica:
        async with admin(server) as first, admin(replica) as second:
            address, topic = f"{replica.address},{server.address}", unique()
            broker = RedisBroker(address)
            async with brokers(broker):
                await broker.connect()
                assert broker.address == server.address
                inbox, _ = await subscribed(broker, topic)
                await reached(broker, topic, inbox)
                with pytest.raises(Unavailable, match="is a replica"):
                    await RedisBroker(replica.address).connect()
                await run(second, "REPLICAOF", "NO", "ONE")
                await run(first, "REPLICAOF", "127.0.0.1", str(replica.port))
                try:
                    await run(first, "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                    await run(first, "CLIENT", "KILL", "TYPE", "pubsub")
                    await becomes(lambda: replica.address in repr(broker))
                    await reached(broker, topic, inbox)
                finally:
                    await run(first, "REPLICAOF", "NO", "ONE")


async def test_a_sentinel_is_not_what_publishes() -> None:
    need(RedisServer)

    class Sentinel(RedisServer):
        def command(self) -> list[str]:
            (self.folder / "sentinel.conf").write_text(f"port {self.port}\n")
            return [self.binary, str(self.folder / "sentinel.conf"), "--sentinel"]

    async with Sentinel() as sentinel:
        with pytest.raises(Unavailable, match="is a Sentinel: give the addresses"):
            await RedisBroker(sentinel.address).connect()
