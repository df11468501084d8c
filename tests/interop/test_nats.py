"""NATS as registry, broker and transport of a fleet of both, and Go Micro's events streams."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
import pytest_asyncio

import shoal
from shoal.broker import Broker
from shoal.broker.jetstream import JetStreamBroker, JetStreamSettings
from shoal.broker.nats import NatsBroker
from shoal.client import Client
from shoal.message import Message
from shoal.registry.nats import NatsRegistry
from tests.servers import Background
from tests.servers import need as need_server
from tests.servers.nats import NatsServer

from .conftest import Facts
from .greeter import FailRequest, Greeter, HelloReply, HelloRequest, unique
from .matrix import GO_TO_PYTHON, PYTHON_TO_GO
from .peers import Peer, PeerFailed, Running
from .test_discovery import _next, node, until
from .test_events import heard as until_heard

PEERS = ("v5",)
"""Only this one's plugins can be had from a module proxy."""


@pytest.fixture(scope="module")
def nats() -> Iterator[str]:
    """The address of a server, with the plugins' name."""
    need_server(NatsServer)
    with Background(NatsServer()) as server:
        yield f"nats://{server.address}"


@asynccontextmanager
async def ours(name: str, nats: str) -> AsyncIterator[shoal.Service]:
    """Run a service of ours with everything over NATS."""
    service = shoal.Service(
        name, version="1.2.3", metadata={"zone": "blue"}, registry=nats, broker=nats,
        transport=nats,
    )  # fmt: skip
    service.handle(Greeter())
    async with service:
        yield service


@asynccontextmanager
async def theirs(name: str, nats: str, go: Peer, **options: Any) -> AsyncIterator[Running]:
    """Run a service of Go Micro's with everything over NATS."""
    async with go.serve(
        name, version="1.2.3", metadata={"zone": "blue"}, address=":0", registry=nats, broker=nats,
        transport=nats, **options,
    ) as running:  # fmt: skip
        yield running


@pytest_asyncio.fixture(loop_scope="session")
async def caller(nats: str) -> AsyncIterator[Client]:
    async with shoal.connect(profile="nats", nats_address=nats) as client:
        yield client


async def test_go_finds_us(go: Peer, nats: str, fact: Facts) -> None:
    name = unique("py")
    async with go.watch(name, registry=nats) as watch:
        async with ours(name, nats) as service:
            with fact("nats: a service is found by its name", GO_TO_PYTHON):
                found = await until(lambda: go.get(name, registry=nats), bool)
                seen = node(found)
                assert len(found[0]["nodes"]) == 1
                assert seen["address"] == service.server.address
                assert seen["metadata"]["zone"] == "blue"
                assert found[0]["version"] == "1.2.3"
            with fact("nats: services are listed", GO_TO_PYTHON):
                assert name in {one["name"] for one in await go.services(registry=nats)}
            with fact("nats: a watch sees a service come", GO_TO_PYTHON):
                change = await watch.event("change")
                assert (change["action"], change["service"]["name"]) == ("create", name)
        with fact("nats: a watch sees a service go", GO_TO_PYTHON):
            while (change := await watch.event("change"))["action"] != "delete":
                pass
            assert change["service"]["name"] == name
    with fact("nats: who has gone is not found", GO_TO_PYTHON):
        assert not await go.get(name, registry=nats)


async def test_we_find_go(go: Peer, nats: str, fact: Facts) -> None:
    name, registry = unique("go"), NatsRegistry(nats)
    async with aclosing(registry.watch(name)) as watch:  # type: ignore[type-var]  # a generator
        first = asyncio.ensure_future(_next(watch))
        await asyncio.sleep(0)
        await registry.get(name)  # the watch has begun
        async with theirs(name, nats, go) as server:
            with fact("nats: a service is found by its name", PYTHON_TO_GO):
                (record,) = await until(lambda: registry.get(name), bool)
                assert [one.id for one in record.nodes] == [server.id]
                assert record.nodes[0].address == server.address
                assert record.nodes[0].metadata["zone"] == "blue"
                assert record.version == "1.2.3"
            with fact("nats: services are listed", PYTHON_TO_GO):
                assert name in await registry.services()
            with fact("nats: a watch sees a service come", PYTHON_TO_GO):
                change = await first
                assert (change.action, change.record.name) == ("create", name)
        with fact("nats: a watch sees a service go", PYTHON_TO_GO):
            while (change := await _next(watch)).action != "delete":
                pass
            assert [one.id for one in change.record.nodes] == [server.id]
    with fact("nats: who has gone is not found", PYTHON_TO_GO):
        assert not await registry.get(name)
    await registry.close()


async def test_go_calls_us(go: Peer, nats: str, fact: Facts) -> None:
    name = unique("py")
    options: dict[str, Any] = {"registry": nats, "transport": nats}
    async with ours(name, nats):
        with fact("nats: calls over the transport", GO_TO_PYTHON):
            answers = await go.calls(name, "Greeter.Hello", {"name": "J"}, times=3, **options)
            assert [answer["reply"]["greeting"] for answer in answers] == ["Hello J"] * 3
        with fact("nats: errors over the transport", GO_TO_PYTHON):
            answer = await go.call(
                name, "Greeter.Fail", {"id": "some.id", "code": 409, "detail": "no"}, **options
            )
            assert answer["error"] == {
                "id": "some.id", "code": 409, "detail": "no", "status": "Conflict",
            }  # fmt: skip
        with fact("nats: streams over the transport", GO_TO_PYTHON):
            lines = await go.stream(
                name, "Greeter.Chat", [{"name": "a"}, {"name": "b"}], close_after=2, **options
            )
            assert [line["item"]["greeting"] for line in lines[:2]] == ["Hello a", "Hello b"]


async def test_we_call_go(go: Peer, nats: str, caller: Client, fact: Facts) -> None:
    name = unique("go")
    async with theirs(name, nats, go):
        with fact("nats: calls over the transport", PYTHON_TO_GO):
            request = shoal.Request(name, "Greeter.Hello", HelloRequest("J"), HelloReply)
            for _ in range(3):
                assert (await caller.call(request, timeout=30)).greeting == "Hello J"
        with fact("nats: calls at the same time", PYTHON_TO_GO):
            calls = (caller.call(request, timeout=30) for _ in range(50))
            replies = await asyncio.gather(*calls)
            assert {reply.greeting for reply in replies} == {"Hello J"}
        with fact("nats: errors over the transport", PYTHON_TO_GO):
            failing = FailRequest("some.id", 409, "no")
            with pytest.raises(shoal.Conflict) as caught:
                await caller.call(shoal.Request(name, "Greeter.Fail", failing, dict))
            assert (caught.value.id, caught.value.detail) == ("some.id", "no")
        with fact("nats: streams over the transport", PYTHON_TO_GO):
            chat = shoal.Request(name, "Greeter.Chat", None, HelloReply)
            async with caller.stream(chat) as stream:
                for text in ("a", "b"):
                    await stream.send(HelloRequest(text))
                    assert (await anext(aiter(stream))).greeting == f"Hello {text}"
    with fact("nats: a server that has gone is noticed at the first message", PYTHON_TO_GO):
        with pytest.raises(shoal.Unavailable):
            await caller.call(request, timeout=5)


async def heard(broker: Broker, topic: str, queue: str = "") -> asyncio.Queue[Message]:
    """Subscribe and return what comes."""
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    await broker.subscribe(topic, arrived.put, queue=queue)
    return arrived


async def test_go_publishes(go: Peer, nats: str, broker: NatsBroker, fact: Facts) -> None:
    topic = unique("topic")
    everyone, queue = await heard(broker, topic), await heard(broker, topic, "mail")
    async with asyncio.timeout(20):
        with fact("nats: events, to everybody and to one of a queue", GO_TO_PYTHON):
            answer = await go.publish(topic, {"name": "x"}, broker=nats, metadata={"Who": "größe"})
            assert answer["ok"], answer
            for arrived in (everyone, queue):
                event = await arrived.get()
                assert said(event.body) == {"name": "x"}
                assert event.header["Micro-Topic"] == topic
                assert event.header["Who"] == "größe"


async def test_we_publish(
    go: Peer, nats: str, broker: NatsBroker, caller: Client, fact: Facts
) -> None:
    topic = unique("topic")
    async with (
        go.subscribe(topic, broker=nats) as everyone,
        go.subscribe(topic, queue="mail", broker=nats) as theirs,
    ):
        ours = await heard(broker, topic, "mail")
        await settled(caller, topic, everyone, ours, theirs)
        with fact("nats: events, to everybody and to one of a queue", PYTHON_TO_GO):
            names = [str(number) for number in range(20)]
            for name in names:
                await caller.publish(topic, {"name": name}, metadata={"Who": "größe"})
            seen = [await everyone.event("message") for _ in names]
            assert [event["body"]["name"] for event in seen] == names
            assert seen[0]["header"]["Who"] == "größe"
            shared: list[str] = []
            async with asyncio.timeout(20):
                while len(shared) < len(names):
                    while not ours.empty():
                        shared.append(said(ours.get_nowait().body)["name"])
                    with contextlib.suppress(PeerFailed):
                        event = await theirs.event("message", timeout=0.2)
                        shared.append(event["body"]["name"])
            assert sorted(shared) == sorted(names)
    name = unique("go")
    async with go.serve(
        name, address=":0", registry=nats, broker=nats, transport=nats, subscribe=topic
    ) as server:
        with fact("nats: event to a service's subscriber", PYTHON_TO_GO):
            # Go says that it serves before its subscription is on its way.
            assert await until_heard(caller, topic, {"name": "served"}, server) == {
                "name": "served"
            }


@pytest_asyncio.fixture(loop_scope="session")
async def broker(nats: str) -> AsyncIterator[NatsBroker]:
    broker = NatsBroker(nats)
    yield broker
    await broker.disconnect()


async def settled(
    caller: Client, topic: str, everyone: Running, ours: asyncio.Queue[Message], theirs: Running
) -> None:
    """Publish until events come to everybody, and take out what came."""
    await until_heard(caller, topic, {"name": "first"}, everyone)
    for listener in (everyone, theirs):
        while not await listener.quiet(seconds=0.3):
            pass
    while not ours.empty():
        ours.get_nowait()


@pytest_asyncio.fixture(loop_scope="session")
async def streams(nats: str) -> AsyncIterator[JetStreamBroker]:
    broker = JetStreamBroker(nats, streams=JetStreamSettings(events=True))
    yield broker
    await broker.disconnect()


async def test_events_streams(go: Peer, nats: str, streams: JetStreamBroker, fact: Facts) -> None:
    """Go Micro's events streams, written and read with one setting."""
    address = nats.replace("nats://", "natsjs://")
    topic, broker = unique("topic"), streams
    arrived = await heard(broker, topic, "mail")
    async with asyncio.timeout(30):
        with fact("nats: events streams in JetStream", GO_TO_PYTHON):
            answer = await go.publish(topic, {"name": "x"}, broker=address, metadata={"Who": "me"})
            assert answer["ok"], answer
            event = await arrived.get()
            assert said(event.body) == {"name": "x"}
            assert event.header["Who"] == "me"
        async with go.subscribe(topic, queue="log", broker=address) as theirs:
            with fact("nats: events streams in JetStream", PYTHON_TO_GO):
                body = Message({"Content-Type": "application/json", "Who": "us"}, b'{"name":"y"}')
                await broker.publish(topic, body)
                message = await theirs.event("message")
                assert message["body"] == {"name": "y"}
                assert message["header"]["Who"] == "us"
        assert said((await arrived.get()).body) == {"name": "y"}
        async with go.subscribe(topic, queue="mail", broker=address) as theirs:
            with fact("nats: a group of an events stream that both are in", GO_TO_PYTHON):
                await go.publish(topic, {"name": "z"}, times=20, broker=address)
                shared = 0
                while shared < 20 and not await theirs.quiet(seconds=0.3):
                    shared += 1
                assert 0 < shared < 20
                for _ in range(20 - shared):
                    assert said((await arrived.get()).body) == {"name": "z"}


def said(body: bytes) -> Any:
    """Return what a body says."""
    return json.loads(body)


# The older generation of the registry's subjects


@pytest.mark.parametrize("version", ["v2"], indirect=True)
async def test_older_go_finds_us(go: Peer, nats: str, fact: Facts) -> None:
    name = unique("py")
    async with go.watch(name, registry=nats) as watch:
        async with shoal.Service(name, version="1.2.3", address="127.0.0.1:0", registry=nats) as us:
            with fact("nats: a service is found by its name", GO_TO_PYTHON):
                found = await until(lambda: go.get(name, registry=nats), bool)
                assert node(found)["address"] == us.server.address
                assert found[0]["version"] == "1.2.3"
            with fact("nats: services are listed", GO_TO_PYTHON):
                assert name in {one["name"] for one in await go.services(registry=nats)}
            with fact("nats: a watch sees a service come", GO_TO_PYTHON):
                change = await watch.event("change")
                assert (change["action"], change["service"]["name"]) == ("create", name)
        with fact("nats: a watch sees a service go", GO_TO_PYTHON):
            while (change := await watch.event("change"))["action"] != "delete":
                pass


@pytest.mark.parametrize("version", ["v2"], indirect=True)
async def test_we_find_older_go(go: Peer, nats: str, fact: Facts) -> None:
    name, registry = unique("go"), NatsRegistry(nats)
    async with aclosing(registry.watch(name)) as watch:  # type: ignore[type-var]  # a generator
        first = asyncio.ensure_future(_next(watch))
        await asyncio.sleep(0)
        await registry.get(name)  # the watch has begun
        async with go.serve(name, version="1.2.3", registry=nats) as server:
            with fact("nats: a service is found by its name", PYTHON_TO_GO):
                (record,) = await until(lambda: registry.get(name), bool)
                assert [one.id for one in record.nodes] == [server.id]
                assert record.nodes[0].address == server.address
            with fact("nats: services are listed", PYTHON_TO_GO):
                assert name in await registry.services()
            with fact("nats: a watch sees a service come", PYTHON_TO_GO):
                change = await first
                assert (change.action, change.record.name) == ("create", name)
        with fact("nats: a watch sees a service go", PYTHON_TO_GO):
            while (change := await _next(watch)).action != "delete":
                pass
    await registry.close()
