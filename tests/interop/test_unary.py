"""Calls with one reply: JSON and protobuf, large, many at once, on connections that are reused."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from google.protobuf import json_format

import shoal
from shoal.client import Client

from .conftest import Facts
from .greeter import Greeter, HelloReply, HelloRequest, unique
from .matrix import GO_TO_PYTHON, PYTHON_TO_GO
from .peers import Peer, Running

FULL = {
    "name": "Jürgen",
    "bigNumber": "9007199254740993",
    "blob": "AAH/",
    "tags": ["a", ""],
    "place": {"city": "Kōbe", "countryCode": "JP"},
    "counts": {"x": "-1"},
    "loud": True,
    "ratio": 0.25,
    "mood": "MERRY",
    "visited": [{"city": "Lima"}, {}],
}
"""Every field of the protobuf request, in proto3 JSON."""

MEBIBYTE = "x" * (1 << 20)


async def test_json_from_go(go: Peer, service: shoal.Service, fact: Facts) -> None:
    with fact("unary call, JSON", GO_TO_PYTHON):
        answer = await go.call(
            "x", "Greeter.Hello", {"name": "Jürgen"}, address=service.server.address
        )
        assert answer == {"ok": True, "reply": {"greeting": "Hello Jürgen"}}


async def test_json_to_go(server: Running, client: Client, fact: Facts) -> None:
    with fact("unary call, JSON", PYTHON_TO_GO):
        greeter = shoal.stub(Greeter, "greeter", client, address=server.address)
        assert await greeter.hello(HelloRequest("Jürgen")) == HelloReply("Hello Jürgen")


@pytest.mark.parametrize("content_type", ["application/protobuf", "application/json"])
async def test_protobuf_from_go(
    go: Peer, service: shoal.Service, fact: Facts, content_type: str
) -> None:
    with fact(f"unary call, protobuf message as {content_type}", GO_TO_PYTHON):
        answer = await go.call(
            "x",
            "Proto.Hello",
            FULL,
            proto=True,
            content_type=content_type,
            address=service.server.address,
        )
        assert answer == {"ok": True, "reply": {"greeting": "Hello Jürgen", "request": FULL}}


@pytest.mark.parametrize("content_type", ["application/protobuf", "application/json"])
async def test_protobuf_to_go(
    server: Running, client: Client, messages: Any, fact: Facts, content_type: str
) -> None:
    with fact(f"unary call, protobuf message as {content_type}", PYTHON_TO_GO):
        message = json_format.ParseDict(FULL, messages.HelloRequest())
        request = shoal.Request(
            "x", "Proto.Hello", message, messages.HelloReply, content_type=content_type
        )
        reply = await client.call(request, address=server.address)
        assert reply == messages.HelloReply(greeting="Hello Jürgen", request=message)


async def test_empty_protobuf_both_ways(
    go: Peer,
    service: shoal.Service,
    server: Running,
    client: Client,
    messages: Any,
    fact: Facts,
) -> None:
    """A message with no field set has no bytes, and is one all the same."""
    with fact("protobuf message of no bytes", GO_TO_PYTHON):
        answer = await go.call("x", "Proto.Hello", {}, proto=True, address=service.server.address)
        assert answer == {"ok": True, "reply": {"greeting": "Hello ", "request": {}}}
    with fact("protobuf message of no bytes", PYTHON_TO_GO):
        request = shoal.Request("x", "Proto.Hello", messages.HelloRequest(), messages.HelloReply)
        reply = await client.call(request, address=server.address)
        assert reply.greeting == "Hello "
        assert not reply.request.name


async def test_large_bodies_both_ways(
    go: Peer, service: shoal.Service, server: Running, client: Client, fact: Facts
) -> None:
    with fact("bodies of 1 MiB", GO_TO_PYTHON):
        answer = await go.call(
            "x", "Greeter.Hello", {"name": MEBIBYTE}, address=service.server.address
        )
        assert answer == {"ok": True, "reply": {"greeting": f"Hello {MEBIBYTE}"}}
    with fact("bodies of 1 MiB", PYTHON_TO_GO):
        request = shoal.Request("x", "Greeter.Hello", {"name": MEBIBYTE}, HelloReply)
        reply = await client.call(request, address=server.address)
        assert reply.greeting == f"Hello {MEBIBYTE}"


async def test_many_at_once_from_go(go: Peer, service: shoal.Service, fact: Facts) -> None:
    with fact("100 calls at once", GO_TO_PYTHON):
        answers = await go.calls(
            "x",
            "Greeter.Hello",
            {"name": "x"},
            times=5,
            parallel=100,
            address=service.server.address,
        )
        assert answers == [{"ok": True, "reply": {"greeting": "Hello x"}}] * 500


async def test_many_at_once_to_go(server: Running, client: Client, fact: Facts) -> None:
    with fact("100 calls at once", PYTHON_TO_GO):
        greeter = shoal.stub(Greeter, "greeter", client, address=server.address)
        replies = await asyncio.gather(*(greeter.hello(HelloRequest(f"{i}")) for i in range(100)))
        assert [reply.greeting for reply in replies] == [f"Hello {i}" for i in range(100)]


async def test_connection_is_reused(go: Peer, fact: Facts) -> None:
    """Every call tells the port it came from, as the handler's metadata has it."""
    async with (
        go.serve(unique("reuse"), registry="none", broker="none") as server,
        shoal.connect() as client,
    ):
        with fact("calls in turn share one connection", PYTHON_TO_GO):
            request = shoal.Request("x", "Greeter.Meta", {}, dict)
            remotes = {
                (await client.call(request, address=server.address))["header"]["Remote"]
                for _ in range(5)
            }
            assert len(remotes) == 1


async def test_go_connection_is_reused(go: Peer, fact: Facts) -> None:
    remotes: list[str] = []

    class Door:
        async def knock(self, request: dict[str, Any]) -> dict[str, Any]:
            return {}

    async def note(call: shoal.Call, next: shoal.Next) -> Any:
        return await next(call)

    service = shoal.Service(unique("reuse"), address="127.0.0.1:0", middleware=[note])
    service.handle(Door())
    accepted = _count_accepted(service, remotes)
    async with service:
        with fact("calls in turn share one connection", GO_TO_PYTHON):
            answers = await go.calls("x", "Door.Knock", {}, times=5, address=service.server.address)
            assert [answer["ok"] for answer in answers] == [True] * 5
            assert accepted == ["one"]


def _count_accepted(service: shoal.Service, found: list[str]) -> list[str]:
    """Note every connection the service accepts."""
    listen = service.transport.listen

    async def counted(address: str, accept: Any) -> Any:
        async def one(socket: Any) -> None:
            found.append("one")
            await accept(socket)

        return await listen(address, one)

    service.transport.listen = counted  # type: ignore[method-assign]  # counts, then does the same
    return found


async def test_go_client_survives_a_restart(go: Peer, fact: Facts) -> None:
    """A server that restarts at its address is called again by a client that had connections.

    Go Micro does not repeat a call on a connection that was closed while it was idle.
    """

    def made(at: str) -> shoal.Service:
        service = shoal.Service(unique("restart"), address=at)
        service.handle(Greeter())
        return service

    with fact("the server restarts between calls", GO_TO_PYTHON):
        async with made("127.0.0.1:0") as first:
            address = first.server.address
            calling = asyncio.create_task(
                go.calls("x", "Greeter.Hello", {}, times=20, send_every=0.1, address=address)
            )
            await asyncio.sleep(0.4)
        async with made(address):
            answers = [answer["ok"] for answer in await calling]
        assert answers[0]
        assert answers[-1]
        assert answers.count(False) <= 2


async def test_our_client_survives_a_restart(go: Peer, client: Client, fact: Facts) -> None:
    request = shoal.Request("x", "Greeter.Hello", {"name": "x"}, dict)
    with fact("the server restarts between calls", PYTHON_TO_GO):
        async with go.serve(unique("r"), registry="none", broker="none") as server:
            address = server.address
            await client.call(request, address=address)
        async with go.serve(unique("r"), registry="none", broker="none", address=address):
            reply = await client.call(request, address=address)
        assert json.dumps(reply) == '{"greeting": "Hello x"}'


async def test_tools_ask_for_health(go: Peer, service: shoal.Service, fact: Facts) -> None:
    """The Debug handler that the tools of v1 to v3 ask, in JSON and in protobuf.

    The messages of Health and Hello have the same bytes: one string.
    """
    at = service.server.address
    with fact("Debug.Health and Debug.Stats, JSON and protobuf", GO_TO_PYTHON):
        answer = await go.call("x", "Debug.Health", {"service": "x"}, address=at)
        assert answer == {"ok": True, "reply": {"status": "ok"}}
        answer = await go.call("x", "Debug.Health", {"name": "x"}, address=at, proto=True)
        assert answer == {"ok": True, "reply": {"greeting": "ok"}}
        answer = await go.call("x", "Debug.Stats", {}, address=at)
        assert int(answer["reply"]["memory"]) > 1 << 20
