"""Streams of every shape: items either way, their end, errors, and what either side cuts off."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

import pytest

import shoal
from shoal.client import Client, EndOfStream
from shoal.errors import ConnectionClosed

from .conftest import Facts
from .greeter import (
    CountReply,
    CountRequest,
    FailRequest,
    Greeter,
    HelloReply,
    HelloRequest,
    SumReply,
    SumRequest,
    unique,
)
from .matrix import GO_TO_PYTHON, PYTHON_TO_GO
from .peers import Peer, Running

T = TypeVar("T")


async def each(items: Sequence[T]) -> AsyncIterator[T]:
    for item in items:
        await asyncio.sleep(0)
        yield item


async def test_server_stream_from_go(go: Peer, service: shoal.Service, fact: Facts) -> None:
    with fact("server stream", GO_TO_PYTHON):
        lines = await go.stream("x", "Greeter.Count", [{"n": 50}], address=service.server.address)
        assert lines == [*({"item": {"i": i}} for i in range(50)), {"end": True}]
    with fact("server stream without items", GO_TO_PYTHON):
        lines = await go.stream("x", "Greeter.Count", [{"n": 0}], address=service.server.address)
        assert lines == [{"end": True}]


async def test_server_stream_to_go(server: Running, client: Client, fact: Facts) -> None:
    greeter = shoal.stub(Greeter, "greeter", client, address=server.address)
    with fact("server stream", PYTHON_TO_GO):
        items = [item async for item in greeter.count(CountRequest(20))]
        assert items == [CountReply(i) for i in range(20)]
    with fact("server stream without items", PYTHON_TO_GO):
        assert [item async for item in greeter.count(CountRequest(0))] == []


async def test_protobuf_stream_from_go(go: Peer, service: shoal.Service, fact: Facts) -> None:
    """The first item is the number 0 and so has no bytes; it is an item all the same."""
    with fact("server stream, protobuf", GO_TO_PYTHON):
        lines = await go.stream(
            "x", "Proto.Count", [{"n": "3"}], proto=True, address=service.server.address
        )
        assert lines == [
            {"item": {}}, {"item": {"i": "1"}}, {"item": {"i": "2"}}, {"end": True}
        ]  # fmt: skip


async def test_protobuf_stream_to_go(
    version: str, server: Running, client: Client, messages: Any, fact: Facts
) -> None:
    request = shoal.Request("x", "Proto.Count", messages.CountRequest(n=3), messages.CountReply)
    async with client.stream(request, address=server.address, timeout=10) as stream:
        with fact("server stream, protobuf", PYTHON_TO_GO):
            assert [(await stream.recv()).i for _ in range(3)] == [0, 1, 2]
        if version == "v2":
            why = "Go Micro v2 sends no end of a protobuf stream"
            with fact.limit("the end of a protobuf stream", PYTHON_TO_GO, why):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await stream.recv()
            return
        with fact("the end of a protobuf stream", PYTHON_TO_GO), pytest.raises(EndOfStream):
            await stream.recv()


async def test_client_stream_from_go(go: Peer, service: shoal.Service, fact: Facts) -> None:
    """A Go client cannot end only its own direction, so an item says that it is the last."""
    with fact("client stream, the last item says so", GO_TO_PYTHON):
        sends = [{"n": 1}, {"n": 2}, {"n": 3, "last": True}]
        lines = await go.stream("x", "Greeter.Sum", sends, address=service.server.address)
        assert lines == [{"item": {"total": 6}}, {"end": True}]


async def test_client_stream_to_go(server: Running, client: Client, fact: Facts) -> None:
    greeter = shoal.stub(Greeter, "greeter", client, address=server.address)
    with fact("client stream, the last item says so", PYTHON_TO_GO):
        numbers = [SumRequest(1), SumRequest(2), SumRequest(3, last=True)]
        assert await greeter.sum(each(numbers)) == SumReply(6)
    with fact("client stream that just ends (half-close), reply after it", PYTHON_TO_GO):
        assert await greeter.total(each([SumRequest(1), SumRequest(2)])) == SumReply(3)
    with fact("half-close, and a handler that takes its time after it", PYTHON_TO_GO):
        assert await greeter.total(each([SumRequest(1), SumRequest(2, ms=700)])) == SumReply(3)
    with fact("a handler that replies nothing to a client stream is an error", PYTHON_TO_GO):
        with pytest.raises(shoal.InternalServerError, match="without a reply"):
            await greeter.sum(each([SumRequest(1), SumRequest(2)]))


async def test_both_stream_from_go(
    version: str, go: Peer, service: shoal.Service, greeter: Greeter, fact: Facts
) -> None:
    with fact("both sides stream", GO_TO_PYTHON):
        sends = [{"name": "a"}, {"name": "b"}, {"name": "c"}]
        lines = await go.stream(
            "x", "Greeter.Chat", sends, close_after=3, address=service.server.address
        )
        greetings = [{"item": {"greeting": f"Hello {name}"}} for name in "abc"]
        assert lines == [*greetings, {"end": True, "closed": True}]
        await greeter._event("chat ended")
    if version != "v1":  # v1's client cannot send while it waits for an item
        with fact("both sides stream, items interleaved", GO_TO_PYTHON):
            lines = await go.stream(
                "x", "Greeter.Chat", sends, send_every=0.02, close_after=3,
                address=service.server.address,
            )  # fmt: skip
            assert lines == [*greetings, {"end": True, "closed": True}]
            await greeter._event("chat ended")


async def test_both_stream_to_go(server: Running, client: Client, fact: Facts) -> None:
    greeter = shoal.stub(Greeter, "greeter", client, address=server.address)
    with fact("both sides stream, ended by the client (half-close)", PYTHON_TO_GO):
        names = [HelloRequest(name) for name in "abc"]
        replies = [reply async for reply in greeter.chat(each(names))]
        assert replies == [HelloReply(f"Hello {name}") for name in "abc"]
        assert "text" not in await server.event("ended")
    with fact("both sides stream, items interleaved", PYTHON_TO_GO):
        request = shoal.Request("x", "Greeter.Chat", None, HelloReply)
        async with client.stream(request, address=server.address, timeout=10) as stream:
            for name in "abc":
                await stream.send(HelloRequest(name))
                assert await stream.recv() == HelloReply(f"Hello {name}")
        await server.event("ended")


async def test_stream_errors_from_python(go: Peer, service: shoal.Service, fact: Facts) -> None:
    with fact("error in the middle of a stream", GO_TO_PYTHON):
        wanted = {"id": "shop.buy", "code": 409, "detail": "größe"}
        lines = await go.stream("x", "Greeter.StreamFail", [wanted], address=service.server.address)
        assert lines[0] == {"item": {"i": 0}}
        assert lines[1]["end"]
        assert {name: lines[1]["error"][name] for name in wanted} == wanted


async def test_stream_errors_from_go(server: Running, client: Client, fact: Facts) -> None:
    greeter = shoal.stub(Greeter, "greeter", client, address=server.address)
    with fact("error in the middle of a stream", PYTHON_TO_GO):
        items = []
        with pytest.raises(shoal.Conflict) as caught:
            async for item in greeter.stream_fail(FailRequest("shop.buy", 409, "größe")):
                items += [item]
        assert items == [CountReply()]
        assert (caught.value.id, caught.value.detail) == ("shop.buy", "größe")


async def test_unknown_stream(
    go: Peer, service: shoal.Service, server: Running, client: Client, fact: Facts
) -> None:
    with fact("stream to an unknown method", GO_TO_PYTHON):
        lines = await go.stream("x", "Greeter.Nothing", [{}], address=service.server.address)
        assert "can't find method Nothing" in lines[-1]["text"]
    with fact("stream to an unknown method", PYTHON_TO_GO):
        request = shoal.Request("x", "Greeter.Nothing", None, dict)
        with pytest.raises(shoal.Error, match="can't find method Nothing"):
            async with client.stream(request, address=server.address, timeout=10) as stream:
                await stream.recv()


async def test_cut_off_by_go(server: Running, client: Client, go: Peer, fact: Facts) -> None:
    """A connection that is cut is an error, not the end of the stream."""
    with fact("the server dies in the middle of a stream", PYTHON_TO_GO):
        async with go.serve(unique("dies"), registry="none", broker="none") as dies:
            for address, leave in ((server.address, False), (dies.address, True)):
                request = shoal.Request("x", "Greeter.Abort", {"exit": leave}, CountReply)
                async with client.stream(request, address=address, timeout=10) as stream:
                    assert await stream.recv() == CountReply()
                    with pytest.raises(ConnectionClosed):
                        await stream.recv()


async def test_client_dies(go: Peer, service: shoal.Service, greeter: Greeter, fact: Facts) -> None:
    with fact("the client dies in the middle of a stream: the handler is cancelled", GO_TO_PYTHON):
        lines = await go.stream(
            "x", "Greeter.Count", [{"n": 100_000}], abort_after=2, address=service.server.address
        )
        assert lines == [{"item": {"i": 0}}, {"item": {"i": 1}}]
        await greeter._event("count cancelled")


async def test_early_close(
    go: Peer,
    service: shoal.Service,
    greeter: Greeter,
    server: Running,
    client: Client,
    fact: Facts,
) -> None:
    with fact("the client closes early: the handler is cancelled", GO_TO_PYTHON):
        lines = await go.stream(
            "x", "Greeter.Count", [{"n": 100_000}], close_after=2, address=service.server.address
        )
        assert lines[2:] == [{"end": True, "closed": True}]
        await greeter._event("count cancelled")
    with fact("the client closes early: the handler is told", PYTHON_TO_GO):
        request = shoal.Request("x", "Greeter.Chat", None, HelloReply)
        async with client.stream(request, address=server.address, timeout=10) as stream:
            await stream.send(HelloRequest("x"))
            await stream.recv()
        await server.event("ended")


async def test_items_sent_at_once_by_go(
    version: str, server: Running, client: Client, fact: Facts
) -> None:
    """Go Micro v2 to v6 reuse the memory of an item that is not sent yet for the next one."""
    request = shoal.Request("x", "Greeter.Count", {"n": 100, "burst": True}, CountReply)
    items: list[int | None] = []
    async with client.stream(request, address=server.address, timeout=10) as stream:
        while len(items) < 100:
            items.append((await stream.recv()).i)
    if version == "v1":
        with fact("100 items that a handler sends at once", PYTHON_TO_GO):
            assert items == list(range(100))
        return
    why = "Go Micro v2 to v6 overwrite items that a handler sends without a pause: some repeat"
    with fact.limit("100 items that a handler sends at once", PYTHON_TO_GO, why):
        assert items != list(range(100))
