"""RabbitMQ as the broker of a fleet of both: events either way, queues that both are in."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

import shoal
from shoal.broker import Broker
from shoal.broker.rabbitmq import RabbitBroker
from shoal.client import Client
from shoal.message import Message
from tests.servers import Background
from tests.servers import need as need_server
from tests.servers.rabbitmq import RabbitServer

from .conftest import Facts
from .greeter import FailRequest, Greeter, HelloReply, HelloRequest, unique
from .matrix import GO_TO_PYTHON, PYTHON_TO_GO
from .peers import Peer, PeerFailed
from .test_events import heard as until_heard

PEERS = ("v5",)
"""Only this one's plugin can be had from a module proxy."""


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[str]:
    """The address of a server, with the plugins' name."""
    need_server(RabbitServer)
    with Background(RabbitServer()) as server:
        yield f"rabbitmq://guest:guest@{server.address}/"


@pytest_asyncio.fixture(loop_scope="session")
async def broker(rabbitmq: str) -> AsyncIterator[RabbitBroker]:
    broker = RabbitBroker(rabbitmq.removeprefix("rabbitmq://"))
    yield broker
    await broker.disconnect()


@pytest_asyncio.fixture(loop_scope="session")
async def caller(rabbitmq: str) -> AsyncIterator[Client]:
    async with shoal.connect(registry="memory", broker=rabbitmq) as client:
        yield client


async def heard(broker: Broker, topic: str, queue: str = "") -> asyncio.Queue[Message]:
    """Subscribe and return what comes."""
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    await broker.subscribe(topic, arrived.put, queue=queue)
    return arrived


def said(message: Message) -> Any:
    """Return what a body says."""
    return json.loads(message.body)


async def test_go_publishes(go: Peer, rabbitmq: str, broker: RabbitBroker, fact: Facts) -> None:
    topic = unique("topic")
    everyone, queue = await heard(broker, topic), await heard(broker, topic, topic + ".mail")
    async with asyncio.timeout(20):
        with fact("rabbitmq: events, to everybody and to one of a queue", GO_TO_PYTHON):
            answer = await go.publish(
                topic, {"name": "x"}, broker=rabbitmq, metadata={"Who": "größe"}
            )
            assert answer["ok"], answer
            for arrived in (everyone, queue):
                event = await arrived.get()
                assert said(event) == {"name": "x"}
                assert event.header["Micro-Topic"] == topic
                assert event.header["Content-Type"] == "application/json"
                assert event.header["Who"] == "größe"
            assert everyone.empty()


async def test_we_publish(
    go: Peer, rabbitmq: str, broker: RabbitBroker, caller: Client, fact: Facts
) -> None:
    topic = unique("topic")
    queue = topic + ".mail"
    async with (
        go.subscribe(topic, broker=rabbitmq) as everyone,
        go.subscribe(topic, queue=queue, broker=rabbitmq) as theirs,
    ):
        ours = await heard(broker, topic, queue)
        for listener in (everyone, theirs):  # Go says that it listens before it does
            await until_heard(caller, topic, {"name": "first"}, listener)
        for listener in (everyone, theirs):
            while not await listener.quiet(seconds=0.3):
                pass
        while not ours.empty():
            ours.get_nowait()
        with fact("rabbitmq: events, to everybody and to one of a queue", PYTHON_TO_GO):
            names = [str(number) for number in range(20)]
            for name in names:
                await caller.publish(topic, {"name": name}, metadata={"Who": "größe"})
            seen = [await everyone.event("message") for _ in names]
            assert [event["body"]["name"] for event in seen] == names
            assert seen[0]["header"]["Who"] == "größe"
            assert seen[0]["header"]["Micro-Topic"] == topic
        shares: tuple[list[str], list[str]] = ([], [])
        with fact("rabbitmq: a queue that both are in", PYTHON_TO_GO):
            async with asyncio.timeout(20):
                while sum(map(len, shares)) < len(names):
                    while not ours.empty():
                        shares[0].append(said(ours.get_nowait())["name"])
                    with contextlib.suppress(PeerFailed):
                        event = await theirs.event("message", timeout=0.2)
                        shares[1].append(event["body"]["name"])
            assert sorted(shares[0] + shares[1]) == sorted(names)
            assert all(shares)


async def test_services_of_both(go: Peer, rabbitmq: str, caller: Client, fact: Facts) -> None:
    """The code of a service is what it is with any other broker."""
    topic, queue = unique("topic"), unique("queue")
    arrived: asyncio.Queue[str] = asyncio.Queue()

    async def on_event(event: HelloRequest) -> None:
        arrived.put_nowait(event.name)

    service = shoal.Service(
        unique("ears"), address="127.0.0.1:0", registry="memory", broker=rabbitmq
    )
    service.subscribe(topic, on_event, queue=queue)
    async with service:
        with fact("rabbitmq: event to a service's subscriber", GO_TO_PYTHON):
            await go.publish(topic, {"name": "from go"}, broker=rabbitmq)
            async with asyncio.timeout(10):
                assert await arrived.get() == "from go"
    async with go.serve(unique("go"), broker=rabbitmq, subscribe=topic) as server:
        with fact("rabbitmq: event to a service's subscriber", PYTHON_TO_GO):
            assert await until_heard(caller, topic, {"name": "served"}, server) == {
                "name": "served"
            }


# The transport, which only Go Micro's older plugins have


@pytest.mark.parametrize("version", ["v2"], indirect=True)
async def test_go_calls_us_over_the_transport(go: Peer, rabbitmq: str, fact: Facts) -> None:
    name = unique("py")
    service = shoal.Service(name, address=":0", registry="memory", transport=rabbitmq)
    service.handle(Greeter())
    async with service:
        options: dict[str, Any] = {"address": service.server.address, "transport": rabbitmq}
        with fact("rabbitmq: calls over the transport", GO_TO_PYTHON):
            answers = await go.calls(name, "Greeter.Hello", {"name": "J"}, times=3, **options)
            assert [answer["reply"]["greeting"] for answer in answers] == ["Hello J"] * 3
        with fact("rabbitmq: errors over the transport", GO_TO_PYTHON):
            answer = await go.call(
                name, "Greeter.Fail", {"id": "some.id", "code": 409, "detail": "no"}, **options
            )
            assert answer["error"]["detail"] == "no"
            assert answer["error"]["code"] == 409


@pytest.mark.parametrize("version", ["v2"], indirect=True)
async def test_we_call_go_over_the_transport(go: Peer, rabbitmq: str, fact: Facts) -> None:
    name = unique("go")
    async with (
        go.serve(name, address=":0", registry="none", broker="none", transport=rabbitmq) as server,
        shoal.connect(registry="memory", transport=rabbitmq) as client,
    ):
        with fact("rabbitmq: calls over the transport", PYTHON_TO_GO):
            request = shoal.Request(name, "Greeter.Hello", HelloRequest("J"), HelloReply)
            for _ in range(3):
                assert (await client.call(request, address=server.address)).greeting == "Hello J"
        with fact("rabbitmq: errors over the transport", PYTHON_TO_GO):
            failing = shoal.Request(name, "Greeter.Fail", FailRequest("some.id", 409, "no"), dict)
            with pytest.raises(shoal.Conflict) as caught:
                await client.call(failing, address=server.address)
            assert (caught.value.id, caught.value.detail) == ("some.id", "no")
