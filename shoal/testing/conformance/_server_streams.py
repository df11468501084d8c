"""Module _server_streams is the part of the suite of servers that is about streams."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import shoal
from shoal.client import Request
from shoal.client.rpc import RpcClient
from shoal.message import Message
from shoal.server import Server
from shoal.testing.conformance._fleet import (
    WAIT,
    Echo,
    Fleet,
    Item,
    Total,
    running,
    stream_of,
    within,
)


class ServerTools:
    """How the suite makes the server under test, and a client for it."""

    @abstractmethod
    def make(self, fleet: Fleet, name: str, **settings: Any) -> Server:
        """Return a server on the fleet's parts; settings are those of ServerSettings and
        `middleware`."""

    def make_fleet(self) -> Fleet:
        """Return the parts for one test; override it for another transport."""
        return Fleet()

    @asynccontextmanager
    async def serving(self, **settings: Any) -> AsyncIterator[tuple[Echo, Echo, RpcClient]]:
        """Serve an Echo; gives its stub, the handler and the client."""
        fleet = self.make_fleet()
        handler = Echo()
        server = self.make(fleet, "echo", **settings)
        server.handle(handler)
        client = fleet.client()
        async with running(fleet, server, client):
            yield shoal.stub(Echo, "echo", client), handler, client


class ServerStreams(ServerTools):
    """Streams of every shape, and how they end."""

    async def test_streams(self) -> None:
        async with self.serving() as (echo, _, _):
            assert [item.number async for item in echo.count(Item("x", 3))] == [0, 1, 2]
            assert [item async for item in echo.count(Item("x", 0))] == []
            total = await within(echo.total(stream_of(Item("a", 1), Item("b", 2))))
            assert total == Total(3, ["a", "b"])
            said = [item.text async for item in echo.chat(stream_of(Item("a"), Item("b")))]
            assert said == ["got a", "got b", "bye"]

    async def test_both_sides_stream_at_once(self) -> None:
        gate = asyncio.Event()
        async with self.serving() as (echo, _, _), asyncio.timeout(WAIT):
            replies = echo.chat(stream_of(Item("a"), Item("b"), gate=gate))
            assert (await anext(replies)).text == "got a"  # before all was sent
            gate.set()
            assert [item.text async for item in replies] == ["got b", "bye"]

    async def test_a_stream_that_fails_gives_its_items_and_then_the_error(self) -> None:
        async with self.serving() as (echo, _, _):
            replies = echo.broken(Item("x"))
            assert await within(anext(replies)) == Item("x")
            with pytest.raises(shoal.Forbidden) as caught:
                await within(anext(replies))
            assert (caught.value.detail, caught.value.id) == ("no more", "some.id")

    async def test_a_client_that_leaves_a_stream_ends_its_handler(self) -> None:
        async with self.serving() as (echo, handler, _):
            async for item in echo.endless(Item()):
                if item.number == 2:
                    break
            await within(handler.cancelled.wait())

    async def test_half_a_stream_is_not_taken_for_all_of_it(self) -> None:
        async with self.serving() as (echo, handler, _):
            gate = asyncio.Event()
            call = asyncio.ensure_future(echo.total(stream_of(Item("a"), Item("b"), gate=gate)))
            await within(handler.started.wait())
            call.cancel()
            await asyncio.wait([call])
            await asyncio.sleep(0.05)
            assert not handler.finished.is_set()

    async def test_the_end_of_a_stream_to_a_method_without_one_runs_no_handler(self) -> None:
        async with self.serving() as (echo, handler, client), asyncio.timeout(WAIT):
            await echo.unary(Item("x"))  # which the server may know again
            request = Request("echo", "Echo.Unary", Item("y"), Item)
            async with client.stream(request) as stream:
                replies = [await stream.recv(), await stream.recv()]
            texts = [reply.text for reply in replies]
            assert texts == ["got ", "got y"]  # of the opening message, and of the request
            await echo.unary(Item("z"))
            assert handler.calls == 4

    async def test_what_a_closing_client_had_sent_is_still_read(self) -> None:
        fleet = self.make_fleet()
        handler = Echo()
        server = self.make(fleet, "echo")
        server.handle(handler)
        async with running(fleet, server), asyncio.timeout(WAIT):
            socket = await fleet.transport.dial(server.address)
            header = {
                "Micro-Endpoint": "Echo.Total",
                "Content-Type": "application/json",
                "Micro-Id": "1",
                "Micro-Stream": "1",
            }
            await socket.send(Message(header))
            for number in range(10):
                await socket.send(Message(header, b'{"number": %d}' % number))
            await socket.send(Message({**header, "Micro-Error": "EOS"}))
            await socket.close()  # as Go's clients do, without waiting
            await handler.finished.wait()
