"""Consul as the registry of a fleet of both: each side finds, watches and calls the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager

import pytest
import pytest_asyncio

import shoal
from shoal.registry.consul import ConsulRegistry
from tests.servers import Background
from tests.servers import need as need_server
from tests.servers.consul import ConsulServer

from .conftest import Facts
from .greeter import Greeter, HelloRequest, unique
from .matrix import GO_TO_PYTHON, PYTHON_TO_GO
from .peers import Peer, Running
from .test_discovery import _next, node, until

PEERS = ("v5",)
"""Only this one's plugin can be had from a module proxy."""


@pytest.fixture(scope="module")
def agent() -> Iterator[str]:
    """The address of an agent, with the registry's name."""
    need_server(ConsulServer)
    with Background(ConsulServer()) as server:
        yield f"consul://{server.address}"


@pytest_asyncio.fixture(loop_scope="session")
async def registry(agent: str) -> AsyncIterator[ConsulRegistry]:
    registry = ConsulRegistry(agent.removeprefix("consul://"))
    yield registry
    assert registry.error is None
    await registry.close()


@asynccontextmanager
async def ours(name: str, agent: str) -> AsyncIterator[shoal.Service]:
    service = shoal.Service(
        name, version="1.2.3", metadata={"zone": "blue"}, address="127.0.0.1:0", registry=agent
    )
    service.handle(Greeter())
    async with service:
        yield service


@asynccontextmanager
async def theirs(name: str, agent: str, go: Peer) -> AsyncIterator[Running]:
    metadata = {"zone": "blue"}
    async with go.serve(
        name, version="1.2.3", metadata=metadata, broker="none", registry=agent
    ) as running:
        yield running


async def test_go_finds_us(go: Peer, agent: str, fact: Facts) -> None:
    name = unique("py")
    async with ours(name, agent) as service:
        with fact("consul: a service is found by its name", GO_TO_PYTHON):
            found = await until(lambda: go.get(name, registry=agent), bool)
            seen = node(found)
            assert seen["address"] == service.server.address
            assert found[0]["version"] == "1.2.3"
            assert seen["metadata"]["zone"] == "blue"
            assert seen["metadata"]["protocol"] == "mucp"
        with fact("consul: endpoints with the fields of request and reply", GO_TO_PYTHON):
            endpoints = {one["name"]: one for one in found[0]["endpoints"]}
            assert endpoints["Greeter.Hello"]["request"]["values"][0]["name"] == "name"
            assert endpoints["Greeter.Count"]["metadata"]["stream"] == "true"
        with fact("consul: a call by the service's name", GO_TO_PYTHON):
            answer = await go.call(name, "Greeter.Hello", {"name": "John"}, registry=agent)
            assert answer == {"ok": True, "reply": {"greeting": "Hello John"}}
        with fact("consul: services are listed", GO_TO_PYTHON):
            assert name in [one["name"] for one in await go.services(registry=agent)]
    assert await until(lambda: go.get(name, registry=agent), lambda found: not found) == []


async def test_we_find_go(go: Peer, agent: str, registry: ConsulRegistry, fact: Facts) -> None:
    name = unique("go")
    async with theirs(name, agent, go) as server, shoal.connect(registry=agent) as client:
        with fact("consul: a service is found by its name", PYTHON_TO_GO):
            (record,) = await until(lambda: registry.get(name), bool)
            assert (record.name, record.version) == (name, "1.2.3")
            (seen,) = record.nodes
            assert (seen.id, seen.address) == (server.id, server.address)
            assert seen.metadata["zone"] == "blue"
            assert seen.metadata["protocol"] == "mucp"
        with fact("consul: endpoints with the fields of request and reply", PYTHON_TO_GO):
            endpoints = {one.name: one for one in record.endpoints}
            request = endpoints["Greeter.Hello"].request
            assert request is not None
            assert request.values[0].name == "name"
            assert endpoints["Greeter.Count"].metadata["stream"] == "true"
        with fact("consul: a call by the service's name", PYTHON_TO_GO):
            reply = await shoal.stub(Greeter, name, client).hello(HelloRequest("John"))
            assert reply.greeting == "Hello John"
        with fact("consul: services are listed", PYTHON_TO_GO):
            assert name in await registry.services()


async def test_go_watches_us(go: Peer, agent: str, fact: Facts) -> None:
    name = unique("py")
    async with go.watch(name, registry=agent) as watch:
        with fact("consul: a watch sees a service come", GO_TO_PYTHON):
            async with ours(name, agent) as service:
                change = await watch.event("change", timeout=10)
                assert change["action"] == "create"
                assert node([change["service"]])["address"] == service.server.address
        with fact("consul: a watch sees a service go", GO_TO_PYTHON):
            while change["action"] != "delete":
                change = await watch.event("change", timeout=10)
            assert change["service"]["nodes"][0]["id"].startswith(name)


async def test_we_watch_go(go: Peer, agent: str, registry: ConsulRegistry, fact: Facts) -> None:
    name = unique("go")
    async with aclosing(registry.watch(name)) as changes:  # type: ignore[type-var]  # a generator
        first = asyncio.create_task(_next(changes))
        await asyncio.sleep(0)
        await registry.get(name)  # waits until the watch has begun
        with fact("consul: a watch sees a service come", PYTHON_TO_GO):
            async with theirs(name, agent, go) as server:
                change = await first
                assert change.action == "create"
                assert change.record.nodes[0].address == server.address
        with fact("consul: a watch sees a service go", PYTHON_TO_GO):
            while (gone := await _next(changes)).action != "delete":
                pass
            assert gone.record.nodes[0].id == server.id


async def test_both_serve_one_name(
    go: Peer, agent: str, registry: ConsulRegistry, fact: Facts
) -> None:
    name = unique("mixed")
    async with theirs(name, agent, go) as server, ours(name, agent) as service:
        addresses = {server.address, service.server.address}

        async def we_see() -> set[str]:
            return {one.address for record in await registry.get(name) for one in record.nodes}

        async def go_sees() -> set[str]:
            found = await go.get(name, registry=agent)
            return {node["address"] for one in found for node in one["nodes"]}

        with fact("consul: one service, nodes of both", PYTHON_TO_GO):
            assert await until(we_see, lambda seen: seen == addresses) == addresses
        with fact("consul: one service, nodes of both", GO_TO_PYTHON):
            assert await until(go_sees, lambda seen: seen == addresses) == addresses


async def test_events_with_go(go: Peer, agent: str, registry: ConsulRegistry, fact: Facts) -> None:
    """The http brokers find each other's subscribers in Consul."""
    heard: asyncio.Queue[HelloRequest] = asyncio.Queue()

    async def on_event(event: HelloRequest) -> None:
        heard.put_nowait(event)

    topic = unique("topic")
    service = shoal.Service(unique("ears"), address="127.0.0.1:0", registry=agent)
    service.subscribe(topic, on_event)
    async with (
        service,
        go.serve(unique("go"), registry=agent, subscribe=topic) as running,
        shoal.connect(registry=agent) as client,
    ):
        with fact("consul: an event reaches the subscribers of both", GO_TO_PYTHON):
            event = {"name": "from go"}
            await go.publish(topic, event, registry=agent, linger=0.5)
            async with asyncio.timeout(10):
                assert (await heard.get()).name == "from go"
            await running.event("message", timeout=10)
        with fact("consul: an event reaches the subscribers of both", PYTHON_TO_GO):
            await client.publish(topic, HelloRequest("from python"))
            assert "from python" in str(await running.event("message", timeout=10))
            async with asyncio.timeout(10):
                assert (await heard.get()).name == "from python"
