"""Nodes that announce no protocol: JSON and protobuf travel in the envelopes of old peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

import shoal
from shoal.client import CallOptions, Client, EndOfStream
from shoal.errors import ServiceNotFound
from shoal.registry import Node, Record
from shoal.registry.memory import MemoryRegistry

from .conftest import Facts
from .greeter import (
    CountReply,
    CountRequest,
    FailRequest,
    Greeter,
    HelloReply,
    HelloRequest,
    unique,
)
from .matrix import GO_TO_PYTHON, PYTHON_TO_GO
from .peers import Peer, Running
from .test_streams import each

JSON, PROTOBUF = "JSON in json-rpc envelopes", "protobuf in proto-rpc envelopes"


@pytest_asyncio.fixture(loop_scope="session")
async def old(go: Peer, service: shoal.Service) -> AsyncIterator[str]:
    """The Shoal service as a node that says nothing of its protocol."""
    name = unique("old")
    async with go.hold(name, id=f"{name}-1", address=service.server.address):
        yield name


@pytest_asyncio.fixture(loop_scope="session")
async def old_client(server: Running) -> AsyncIterator[Client]:
    """A client that knows the Go server as such a node, by the name `old`."""
    registry = MemoryRegistry()
    await registry.register(Record("old", nodes=(Node("old-1", server.address),)))
    async with shoal.connect(registry=registry) as client:
        yield client
    await registry.close()


async def test_json_from_go(go: Peer, old: str, fact: Facts) -> None:
    with fact(JSON, GO_TO_PYTHON):
        answer = await go.call(old, "Greeter.Hello", {"name": "Jürgen"})
        assert answer == {"ok": True, "reply": {"greeting": "Hello Jürgen"}}
    with fact(f"{JSON}: error", GO_TO_PYTHON):
        wanted = {"id": "shop.buy", "code": 409, "detail": "größe"}
        answer = await go.call(old, "Greeter.Fail", wanted, retries=0)
        assert {name: answer["error"][name] for name in wanted} == wanted
    with fact(f"{JSON}: streams", GO_TO_PYTHON):
        lines = await go.stream(old, "Greeter.Count", [{"n": 3}])
        assert lines == [*({"item": {"i": i}} for i in range(3)), {"end": True}]
        lines = await go.stream(old, "Greeter.Sum", [{"n": 1}, {"n": 2, "last": True}])
        assert lines == [{"item": {"total": 3}}, {"end": True}]


async def test_json_to_go(old_client: Client, fact: Facts) -> None:
    greeter = shoal.stub(Greeter, "old", old_client)
    with fact(JSON, PYTHON_TO_GO):
        assert await greeter.hello(HelloRequest("Jürgen")) == HelloReply("Hello Jürgen")
    with fact(f"{JSON}: error", PYTHON_TO_GO):
        with pytest.raises(shoal.Conflict) as caught:
            await greeter.fail(FailRequest("shop.buy", 409, "größe"))
        assert (caught.value.id, caught.value.detail) == ("shop.buy", "größe")
    with fact(f"{JSON}: streams", PYTHON_TO_GO):
        async with asyncio.timeout(10):
            items = [item async for item in greeter.count(CountRequest(3))]
            assert items == [CountReply(i) for i in range(3)]
            names = [HelloRequest(name) for name in "ab"]
            replies = [reply.greeting async for reply in greeter.chat(each(names))]
            assert replies == ["Hello a", "Hello b"]


async def test_protobuf_from_go(go: Peer, old: str, fact: Facts) -> None:
    with fact(PROTOBUF, GO_TO_PYTHON):
        answers = await go.calls(old, "Proto.Hello", {"name": "x"}, times=2, proto=True)
        assert answers == [
            {"ok": True, "reply": {"greeting": "Hello x", "request": {"name": "x"}}}
        ] * 2  # fmt: skip
    with fact(f"{PROTOBUF}: error", GO_TO_PYTHON):
        answer = await go.call(old, "Proto.Nothing", {}, proto=True, retries=0)
        assert answer["error"]["code"] == 404
    with fact(f"{PROTOBUF}: streams", GO_TO_PYTHON):
        lines = await go.stream(old, "Proto.Count", [{"n": "2"}], proto=True)
        assert lines == [{"item": {}}, {"item": {"i": "1"}}, {"end": True}]


async def test_protobuf_to_go(version: str, old_client: Client, messages: Any, fact: Facts) -> None:
    with fact(PROTOBUF, PYTHON_TO_GO):
        for _ in range(2):
            request = shoal.Request(
                "old", "Proto.Hello", messages.HelloRequest(name="x"), messages.HelloReply
            )
            assert (await old_client.call(request, timeout=10)).greeting == "Hello x"
    options: CallOptions = {"timeout": 2}
    with fact(f"{PROTOBUF}: error", PYTHON_TO_GO):
        request = shoal.Request(
            "old", "Proto.Nothing", messages.HelloRequest(), messages.HelloReply
        )
        with pytest.raises(shoal.Error, match="can't find method"):
            await old_client.call(request, **options)
    with fact(f"{PROTOBUF}: streams", PYTHON_TO_GO):
        counting = shoal.Request(
            "old", "Proto.Count", messages.CountRequest(n=2), messages.CountReply
        )
        async with old_client.stream(counting, **options) as stream:
            assert [(await stream.recv()).i for _ in range(2)] == [0, 1]
            with pytest.raises(EndOfStream):
                await stream.recv()


async def test_nobody(client: Client) -> None:
    with pytest.raises(ServiceNotFound):
        await client.call(shoal.Request(unique("nobody"), "Greeter.Hello", {}, dict))
