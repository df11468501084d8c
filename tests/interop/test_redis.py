"""Redis as the broker of a fleet of both: Go Micro's plugin of that name, and ours."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

import shoal
from shoal.client import Client
from tests.servers import Background
from tests.servers import need as need_server
from tests.servers.redis import RedisServer

from .conftest import Facts
from .greeter import HelloRequest, unique
from .matrix import GO_TO_PYTHON, PYTHON_TO_GO
from .peers import Peer
from .test_events import Listener, heard

METADATA = {"Trace": "a=b; c", "Who-Is": "größe 蛇"}


PEERS = ("v2",)
"""The newest whose plugin can be had from a module proxy; its code stayed the same after."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    need_server(RedisServer)
    with Background(RedisServer()) as server:
        yield server.address


@pytest.fixture
def redis(server: str) -> str:
    """The broker, as a flag of either side."""
    return f"redis://{server}"


@pytest_asyncio.fixture(loop_scope="session")
async def publisher(redis: str) -> AsyncIterator[Client]:
    async with shoal.connect(registry="memory", broker=redis) as client:
        yield client


@asynccontextmanager
async def listening(redis: str, topic: str, kind: Any = HelloRequest) -> AsyncIterator[Listener]:
    """Run a Shoal service that subscribes to a topic."""
    listener = Listener()

    async def on_event(event: Any) -> None:
        await listener.on_event(event)

    on_event.__annotations__["event"] = kind
    service = shoal.Service(unique("ears"), registry="memory", broker=redis, address="127.0.0.1:0")
    service.subscribe(topic, on_event)
    async with service:
        yield listener


async def test_go_publishes(
    go: Peer, redis: str, publisher: Client, messages: Any, fact: Facts
) -> None:
    topic = unique("topic")
    async with listening(redis, topic) as first, listening(redis, topic) as second:
        answer = await go.publish(topic, {"name": "Jürgen"}, broker=redis, metadata=METADATA)
        assert answer["ok"], answer
        with fact("redis: event to every subscriber", GO_TO_PYTHON):
            seen = [await listener.next() for listener in (first, second)]
            assert [event for event, _ in seen] == [HelloRequest("Jürgen")] * 2
        with fact("redis: event with metadata, also beyond ASCII", GO_TO_PYTHON):
            assert {name: seen[0][1][name] for name in METADATA} == METADATA
    async with listening(redis, topic, messages.HelloRequest) as listener:
        with fact("redis: event to a service's subscriber, protobuf", GO_TO_PYTHON):
            await go.publish(
                topic, {"name": "x", "bigNumber": str(1 << 60)}, broker=redis, proto=True
            )
            event, _ = await listener.next()
            assert event == messages.HelloRequest(name="x", big_number=1 << 60)


async def test_we_publish(go: Peer, redis: str, publisher: Client, fact: Facts) -> None:
    topic = unique("topic")
    async with (
        go.subscribe(topic, broker=redis) as first,
        go.subscribe(topic, broker=redis) as second,
    ):
        with fact("redis: event to every subscriber", PYTHON_TO_GO):
            await publisher.publish(topic, {"name": "Jürgen"}, metadata=METADATA)
            seen = [await listener.event("message") for listener in (first, second)]
            assert [one["body"] for one in seen] == [{"name": "Jürgen"}] * 2
            assert {one["topic"] for one in seen} == {topic}
        with fact("redis: event with metadata, also beyond ASCII", PYTHON_TO_GO):
            header = seen[0]["header"]
            assert {name: header[name] for name in METADATA} == METADATA


async def test_we_publish_to_a_service(
    go: Peer, redis: str, publisher: Client, messages: Any, fact: Facts
) -> None:
    topic = unique("topic")
    async with go.serve(unique("go"), broker=redis, subscribe=topic) as server:
        with fact("redis: event to a service's subscriber, JSON", PYTHON_TO_GO):
            assert await heard(publisher, topic, {"name": "x"}, server) == {"name": "x"}
    topic = unique("topic")
    async with go.serve(unique("go"), broker=redis, subscribe=topic, proto=True) as server:
        with fact("redis: event to a service's subscriber, protobuf", PYTHON_TO_GO):
            event = messages.HelloRequest(name="x", big_number=1 << 60)
            body = await heard(publisher, topic, event, server)
            assert body == {"name": "x", "bigNumber": str(1 << 60)}


async def test_the_same_is_on_the_channel(
    go: Peer, server: str, redis: str, publisher: Client, fact: Facts
) -> None:
    """Members and their order; the header's differ only in an id and in the order of names."""
    topic = unique("topic")
    host, _, port = server.rpartition(":")
    client = Redis(host=host, port=int(port))
    try:
        async with client.pubsub() as channel, asyncio.timeout(30):
            await channel.subscribe(topic)
            await channel.get_message(timeout=5)
            await go.publish(topic, {"name": "x"}, broker=redis)
            theirs = (await channel.get_message(timeout=5) or {})["data"]
            await publisher.publish(topic, {"name": "x"})
            ours = (await channel.get_message(timeout=5) or {})["data"]
        with fact("redis: the same JSON on the channel", PYTHON_TO_GO):
            assert ours.startswith(b'{"Header":{')
            assert ours[ours.index(b'},"Body":"') :] == theirs[theirs.index(b'},"Body":"') :]
            mine, go_s = json.loads(ours)["Header"], json.loads(theirs)["Header"]
            assert {name.lower() for name in mine} == {name.lower() for name in go_s}
            assert mine["Content-Type"] == go_s["Content-Type"] == "application/json"
            assert mine["Micro-Topic"] == go_s["Micro-Topic"] == topic
    finally:
        await client.aclose()
