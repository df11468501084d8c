"""Discovery by mdns: each side finds, lists and watches the services of the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

import shoal
from shoal.registry import Change, Record
from shoal.registry.mdns import MdnsRegistry

from .conftest import Facts
from .greeter import Greeter, HelloRequest, unique
from .matrix import GO_TO_PYTHON, PYTHON_TO_GO
from .peers import Object, Peer

T = TypeVar("T")


async def until(look: Callable[[], Awaitable[T]], done: Callable[[T], bool]) -> T:
    """Return what is seen once it is as wanted, or what was seen last when it never is.

    One look may miss an answer: Go Micro and Shoal gather them for a tenth of a second.
    """
    seen = await look()
    for _ in range(50):
        if done(seen):
            break
        await asyncio.sleep(0.05)
        seen = await look()
    return seen


@asynccontextmanager
async def ours(name: str, **settings: Any) -> AsyncIterator[shoal.Service]:
    service = shoal.Service(name, address="127.0.0.1:0", **settings)
    service.handle(Greeter())
    async with service:
        yield service


def node(found: list[Object]) -> Object:
    """Return the only node of the only version."""
    assert len(found) == 1
    assert len(found[0]["nodes"]) == 1
    return dict(found[0]["nodes"][0])


async def test_go_finds_us(go: Peer, fact: Facts) -> None:
    name = unique("py")
    async with ours(name, version="1.2.3", metadata={"zone": "blue"}) as service:
        with fact("a service is found by its name", GO_TO_PYTHON):
            found = await until(lambda: go.get(name), bool)
            seen = node(found)
            assert seen["address"] == service.server.address
            assert seen["id"].startswith(f"{name}-")
            assert found[0]["version"] == "1.2.3"
            assert seen["metadata"]["zone"] == "blue"
            assert seen["metadata"]["protocol"] == "mucp"
        with fact("endpoints with the fields of request and reply", GO_TO_PYTHON):
            endpoints = {one["name"]: one for one in found[0]["endpoints"]}
            assert endpoints["Greeter.Hello"]["request"]["values"][0]["name"] == "name"
            assert endpoints["Greeter.Hello"]["response"]["name"] == "HelloReply"
            assert endpoints["Greeter.Count"]["metadata"]["stream"] == "true"
        with fact("a call by the service's name", GO_TO_PYTHON):
            answer = await go.call(name, "Greeter.Hello", {"name": "John"})
            assert answer == {"ok": True, "reply": {"greeting": "Hello John"}}
        with fact("services are listed", GO_TO_PYTHON):
            # Go Micro v1 lists names as it reads them, with the domain behind.
            names = await until(
                lambda: _names(go), lambda names: name in names or f"{name}.micro." in names
            )
            assert name in names or f"{name}.micro." in names


async def _names(go: Peer) -> list[str]:
    return [service["name"] for service in await go.services()]


async def test_we_find_go(go: Peer, fact: Facts) -> None:
    name = unique("go")
    async with (
        go.serve(name, version="1.2.3", metadata={"zone": "blue"}, broker="none") as server,
        shoal.connect() as client,
    ):
        registry = MdnsRegistry()
        with fact("a service is found by its name", PYTHON_TO_GO):
            (record,) = await until(lambda: registry.get(name), bool)
            assert (record.name, record.version) == (name, "1.2.3")
            (seen,) = record.nodes
            assert (seen.id, seen.address) == (server.id, server.address)
            assert seen.metadata["zone"] == "blue"
            assert seen.metadata["protocol"] == "mucp"
        with fact("endpoints with the fields of request and reply", PYTHON_TO_GO):
            endpoints = {one.name: one for one in record.endpoints}
            request, reply = endpoints["Greeter.Hello"].request, endpoints["Greeter.Hello"].response
            assert request is not None
            assert reply is not None
            assert request.values[0].name == "name"
            assert reply.name == "HelloReply"
            assert endpoints["Greeter.Count"].metadata["stream"] == "true"
        with fact("a call by the service's name", PYTHON_TO_GO):
            reply_ = await shoal.stub(Greeter, name, client).hello(HelloRequest("John"))
            assert reply_.greeting == "Hello John"
        with fact("services are listed", PYTHON_TO_GO):
            assert name in await until(registry.services, lambda names: name in names)
        await registry.close()


async def test_go_watches_us(version: str, go: Peer, fact: Facts) -> None:
    name = unique("py")
    async with go.watch(name) as watch:
        with fact("a watch sees a service come", GO_TO_PYTHON):
            async with ours(name) as service:
                change = await watch.event("change", timeout=10)
                assert change["action"] == "create"
                assert node([change["service"]])["address"] == service.server.address
        with fact("a watch sees a service go", GO_TO_PYTHON):
            while change["action"] != "delete":
                change = await watch.event("change", timeout=10)
            assert change["service"]["nodes"][0]["id"].startswith(name)
    assert await go.get(name) == []


async def test_we_watch_go(go: Peer, fact: Facts) -> None:
    name = unique("go")
    registry = MdnsRegistry()
    async with aclosing(registry.watch(name)) as changes:  # type: ignore[type-var]  # a generator
        first = asyncio.create_task(_next(changes))
        await asyncio.sleep(0.1)
        with fact("a watch sees a service come", PYTHON_TO_GO):
            async with go.serve(name, broker="none") as server:
                change = await first
                assert change.action == "create"
                assert change.record.nodes[0].address == server.address
        with fact("a watch sees a service go", PYTHON_TO_GO):
            while (gone := await _next(changes)).action != "delete":
                pass
            assert gone.record.nodes[0].id == server.id
    assert await registry.get(name) == []
    await registry.close()


async def _next(changes: AsyncIterator[Change]) -> Change:
    async with asyncio.timeout(10):
        return await anext(changes)


async def test_both_serve_one_name(version: str, go: Peer, fact: Facts) -> None:
    """A fleet of both: each side sees all nodes, and calls go to either."""
    name = unique("mixed")
    async with go.serve(name, broker="none") as server, ours(name) as service:
        addresses = {server.address, service.server.address}
        registry = MdnsRegistry()

        async def we_see() -> set[str]:
            records: list[Record] = list(await registry.get(name))
            return {node.address for record in records for node in record.nodes}

        async def go_sees() -> set[str]:
            return {node["address"] for one in await go.get(name) for node in one["nodes"]}

        with fact("one service, nodes of both", PYTHON_TO_GO):
            assert await until(we_see, lambda seen: seen == addresses) == addresses
        with fact("one service, nodes of both", GO_TO_PYTHON):
            assert await until(go_sees, lambda seen: seen == addresses) == addresses
        await registry.close()
