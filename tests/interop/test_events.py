"""Events over the http broker: to every subscriber, or to one of a queue."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

import shoal
from shoal.broker._http_targets import CURRENT
from shoal.broker.http import HttpBroker
from shoal.client import Client
from shoal.registry.mdns import MdnsRegistry

from .conftest import Facts
from .greeter import HelloRequest, unique
from .matrix import GO_TO_PYTHON, PYTHON_TO_GO
from .peers import Object, Peer, PeerFailed, Running
from .test_discovery import until

METADATA = {"Trace": "a=b; c", "Who-Is": "größe 蛇"}


@dataclass
class Parts:
    """A registry and a broker of the generation that a Go Micro version has."""

    registry: MdnsRegistry
    broker: HttpBroker
    name: str

    async def nodes(self, topic: str) -> int:
        """Return how many subscriptions to a topic the registry knows."""
        records = await self.registry.get(self.name)
        nodes = [node for record in records for node in record.nodes]
        return sum(node.metadata.get("topic") == topic for node in nodes)


@pytest_asyncio.fixture(loop_scope="session")
async def parts(version: str) -> AsyncIterator[Parts]:
    """Go Micro v1 has another name in the registry, which a Shoal fleet takes in as well."""
    generations = (CURRENT, "go.micro.http.broker") if version == "v1" else (CURRENT,)
    registry = MdnsRegistry()
    broker = HttpBroker(registry, generations=generations)
    yield Parts(registry, broker, generations[-1])
    await broker.disconnect()
    await registry.close()


@pytest_asyncio.fixture(loop_scope="session")
async def publisher(parts: Parts) -> AsyncIterator[Client]:
    async with shoal.connect(registry=parts.registry, broker=parts.broker) as client:
        yield client


class Listener:
    """A service that keeps what it is told."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[tuple[Any, dict[str, str]]] = asyncio.Queue()

    async def on_event(self, event: HelloRequest) -> None:
        self.heard.put_nowait((event, dict(shoal.metadata())))

    async def next(self) -> tuple[Any, dict[str, str]]:
        async with asyncio.timeout(10):
            return await self.heard.get()


@asynccontextmanager
async def listening(
    parts: Parts, topic: str, queue: str = "", handler: Callable[..., Awaitable[None]] | None = None
) -> AsyncIterator[Listener]:
    """Run a Shoal service that subscribes to a topic."""
    listener = Listener()
    service = shoal.Service(
        unique("ears"), registry=parts.registry, broker=parts.broker, address="127.0.0.1:0"
    )
    service.subscribe(topic, handler or listener.on_event, queue=queue)
    async with service:
        yield listener


async def published(
    go: Peer, topic: str, event: object, *, linger: float = 0.3, **options: Any
) -> None:
    """Let Go publish; a look-up that misses an answer fails and is made again."""
    answer = await until(
        lambda: go.publish(topic, event, linger=linger, **options), lambda answer: answer["ok"]
    )
    assert answer["ok"], answer


async def heard(client: Client, topic: str, event: object, listener: Running) -> Object:
    """Publish until a Go subscriber hears it, and return what it heard.

    Go Micro announces a subscription up to a second after it is there; a publisher that knows
    the topic's other subscribers does not look for more.
    """
    for _ in range(25):
        await client.publish(topic, event)
        with contextlib.suppress(PeerFailed):
            return _body(await listener.event("message", timeout=0.3))
    raise PeerFailed(f"{listener} heard nothing of {topic}\n{listener.log}")


async def test_go_publishes(go: Peer, parts: Parts, fact: Facts) -> None:
    topic = unique("topic")
    async with listening(parts, topic) as first, listening(parts, topic) as second:
        with fact("event to every subscriber", GO_TO_PYTHON):
            await published(go, topic, {"name": "Jürgen"}, metadata=METADATA)
            for listener in (first, second):
                event, header = await listener.next()
                assert event == HelloRequest("Jürgen")
        with fact("event with metadata, also beyond ASCII", GO_TO_PYTHON):
            assert {name: header[name] for name in METADATA} == METADATA


async def test_we_publish(go: Peer, parts: Parts, publisher: Client, fact: Facts) -> None:
    topic = unique("topic")
    async with go.subscribe(topic) as first, go.subscribe(topic) as second:
        with fact("event to every subscriber", PYTHON_TO_GO):
            await until(lambda: parts.nodes(topic), lambda count: count == 2)
            await publisher.publish(topic, {"name": "Jürgen"}, metadata=METADATA)
            for listener in (first, second):
                message = await listener.event("message")
                assert message["body"] == {"name": "Jürgen"}
                assert message["topic"] == topic
        with fact("event with metadata, also beyond ASCII", PYTHON_TO_GO):
            assert {name: message["header"][name] for name in METADATA} == METADATA


async def test_we_publish_to_a_service(
    go: Peer, parts: Parts, publisher: Client, messages: Any, fact: Facts
) -> None:
    """A subscriber of a Go service, which decodes the event by its content type."""
    topic = unique("topic")
    async with go.serve(unique("go"), subscribe=topic) as server:
        with fact("event to a service's subscriber, JSON", PYTHON_TO_GO):
            assert await heard(publisher, topic, {"name": "x"}, server) == {"name": "x"}
    topic = unique("topic")
    async with go.serve(unique("go"), subscribe=topic, proto=True) as server:
        with fact("event to a service's subscriber, protobuf", PYTHON_TO_GO):
            event = messages.HelloRequest(name="x", big_number=1 << 60)
            body = await heard(publisher, topic, event, server)
            assert body == {"name": "x", "bigNumber": str(1 << 60)}


async def test_go_publishes_protobuf(go: Peer, parts: Parts, messages: Any, fact: Facts) -> None:
    topic = unique("topic")
    heard: asyncio.Queue[Any] = asyncio.Queue()

    async def on_event(event: Any) -> None:
        heard.put_nowait(event)

    on_event.__annotations__["event"] = messages.HelloRequest
    async with listening(parts, topic, handler=on_event):
        with fact("event to a service's subscriber, protobuf", GO_TO_PYTHON):
            await published(go, topic, {"name": "x", "bigNumber": str(1 << 60)}, proto=True)
            async with asyncio.timeout(10):
                assert (await heard.get()) == messages.HelloRequest(name="x", big_number=1 << 60)


@pytest.mark.parametrize("direction", [GO_TO_PYTHON, PYTHON_TO_GO])
async def test_queue_of_both(
    go: Peer, parts: Parts, publisher: Client, fact: Facts, direction: str
) -> None:
    """Each event reaches one of the queue's members, be it Go's or ours, and everybody without."""
    topic, count = unique("topic"), 8
    async with (
        listening(parts, topic, queue="mail") as ours,
        listening(parts, topic) as outside,
        go.subscribe(topic, queue="mail") as theirs,
    ):
        got: list[str] = []

        async def from_us() -> None:
            while True:
                got.append((await ours.heard.get())[0].name)

        async def from_go() -> None:
            while True:
                got.append(_body(await theirs.event("message", timeout=60))["name"])

        tasks = [asyncio.create_task(from_us()), asyncio.create_task(from_go())]
        names = [str(i) for i in range(count)]
        with fact("event to one of a queue that both are in", direction):
            await until(lambda: parts.nodes(topic), lambda nodes: nodes == 3)
            for name in names:
                if direction == PYTHON_TO_GO:
                    await publisher.publish(topic, {"name": name})
            if direction == GO_TO_PYTHON:
                await published(go, topic, {"name": "x"}, times=count, linger=2)
                names = ["x"] * count
            assert [(await outside.next())[0].name for _ in names] == names
            await until(_constant(got), lambda seen: len(seen) >= count)
            await asyncio.sleep(0.2)
            assert sorted(got) == sorted(names)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _body(message: Object) -> Object:
    body: Object = message["body"]
    return body


def _constant(items: list[str]) -> Callable[[], Awaitable[list[str]]]:
    async def look() -> list[str]:
        return items

    return look


async def test_subscribers_come_and_go(
    go: Peer, parts: Parts, publisher: Client, fact: Facts
) -> None:
    topic = unique("topic")
    async with go.subscribe(topic) as early:
        assert await heard(publisher, topic, {"name": "x"}, early) == {"name": "x"}
        async with go.subscribe(topic) as late:
            with fact("a subscriber that came later is found", PYTHON_TO_GO):
                assert await heard(publisher, topic, {"name": "y"}, late) == {"name": "y"}
    with fact("a subscriber that left is forgotten", PYTHON_TO_GO):
        await until(lambda: parts.nodes(topic), lambda count: not count)
        await publisher.publish(topic, {"name": "z"})
