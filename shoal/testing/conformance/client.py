"""Module client is the suite every client passes: what the contract's docstrings promise.

    class TestZebra(ClientConformance):
        def make(self, fleet: Fleet, **settings: Any) -> Client:
            return ZebraClient(**fleet.parts(), selector=fleet.selector, **settings)

The tests are coroutines: run them with pytest-asyncio in auto mode.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

import shoal
from shoal.client import Client, EndOfStream
from shoal.errors import ConnectionClosed, ServiceNotFound
from shoal.message import Message
from shoal.middleware import Call, Next
from shoal.registry import Node, Record
from shoal.selector import filters
from shoal.server.rpc import RpcServer
from shoal.testing.conformance._fleet import WAIT, Echo, Fleet, Item, running, within
from shoal.transport import Listener, Socket

__all__ = ["ClientConformance", "Fleet"]


class ClientConformance:
    """A client of one kind, calling the reference server."""

    @abstractmethod
    def make(self, fleet: Fleet, **settings: Any) -> Client:
        """Return a client on the fleet's parts; settings are `middleware`, `timeout`, `retries`."""

    def make_fleet(self) -> Fleet:
        """Return the parts for one test; override it for another transport."""
        return Fleet()

    @asynccontextmanager
    async def calling(self, **settings: Any) -> AsyncIterator[tuple[Client, Echo, RpcServer]]:
        """Serve an Echo; gives the client, the handler and the server."""
        fleet = self.make_fleet()
        handler = Echo()
        server = fleet.server("echo")
        server.handle(handler)
        client = self.make(fleet, **settings)
        async with running(fleet, server, client):
            yield client, handler, server

    async def test_call_decodes_into_the_type_that_is_asked_for(self) -> None:
        async with self.calling() as (client, _, _):
            request = shoal.Request("echo", "Echo.Unary", {"text": "a"}, Item)
            assert await within(client.call(request)) == Item("got a", 1)
            plain = shoal.Request("echo", "Echo.Unary", Item("a"), dict[str, Any])
            assert await within(client.call(plain)) == {"text": "got a", "number": 1}

    async def test_many_calls_at_once(self) -> None:
        async with self.calling() as (client, _, _):
            requests = [
                shoal.Request("echo", "Echo.Unary", Item(str(number), number), Item)
                for number in range(200)
            ]
            replies = await within(asyncio.gather(*map(client.call, requests)))
            assert replies == [Item(f"got {number}", number + 1) for number in range(200)]

    async def test_an_unknown_service_is_named(self) -> None:
        async with self.calling() as (client, _, _):
            with pytest.raises(ServiceNotFound, match="nobody"):
                await within(client.call(shoal.Request("nobody", "A.B", {}, dict)))
            with pytest.raises(ServiceNotFound, match="nobody"):
                async with client.stream(shoal.Request("nobody", "A.B", None, dict)):
                    raise AssertionError("it cannot be open")

    async def test_an_address_bypasses_discovery(self) -> None:
        async with self.calling() as (client, _, server):
            request = shoal.Request("unheard.of", "Echo.Unary", Item("a"), Item)
            for address in (server.address, [server.address, server.address]):
                assert await within(client.call(request, address=address)) == Item("got a", 1)

    async def test_a_timeout_says_which_limit_and_where(self) -> None:
        async with self.calling() as (client, handler, _):
            request = shoal.Request("echo", "Echo.Waiting", Item(), Item)
            with pytest.raises(shoal.Timeout, match=r"timeout of 0\.05 s.*attempt 1 on echo-"):
                await within(client.call(request, timeout=0.05))
            with pytest.raises(shoal.Timeout, match="deadline of its caller"), shoal.deadline(0.05):
                await within(client.call(request, timeout=5))
            with pytest.raises(shoal.Timeout), shoal.deadline(0):
                await within(client.call(request))
            assert handler.calls == 2

    async def test_the_clients_own_timeout_holds_without_another(self) -> None:
        async with self.calling(timeout=0.05) as (client, _, _):
            with pytest.raises(shoal.Timeout):
                await within(client.call(shoal.Request("echo", "Echo.Waiting", Item(), Item)))

    async def test_cancelling_passes_through(self) -> None:
        async with self.calling() as (client, handler, _):
            call = asyncio.ensure_future(
                client.call(shoal.Request("echo", "Echo.Waiting", Item(), Item))
            )
            await within(handler.started.wait())
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await within(call)
            await within(handler.cancelled.wait())

    async def test_metadata_of_the_call_and_of_the_context(self) -> None:
        async with self.calling() as (client, _, _):
            request = shoal.Request("echo", "Echo.Metadata", Item(), dict[str, str])
            with shoal.with_metadata(one="1", two="2"):
                seen = await within(client.call(request, metadata={"Two": "3"}))
            assert (seen["One"], seen["Two"]) == ("1", "3")
            assert "One" not in await within(client.call(request))

    @pytest.mark.parametrize(
        "metadata", [{"A B": "x"}, {"A:": "x"}, {"A\r\nB": "x"}, {"": "x"}, {"Micro-Topic": "x"}]
    )
    async def test_metadata_that_cannot_be_sent_is_refused(self, metadata: dict[str, str]) -> None:
        async with self.calling() as (client, handler, _):
            request = shoal.Request("echo", "Echo.Unary", Item(), Item)
            with pytest.raises(shoal.BadRequest):
                await within(client.call(request, metadata=metadata))
            assert handler.calls == 0

    async def test_line_breaks_in_metadata_inject_nothing(self) -> None:
        async with self.calling() as (client, _, _):
            request = shoal.Request("echo", "Echo.Metadata", Item(), dict[str, str])
            seen = await within(client.call(request, metadata={"A": "x\r\nMicro-Error: y"}))
            assert "Micro-Error" not in seen
            assert seen["A"] == "x  Micro-Error: y"

    async def test_filters_and_strategy_choose_the_node(self) -> None:
        fleet = self.make_fleet()
        servers = []
        for version in ("1", "2"):
            server = fleet.server("echo", version=version, id=version)
            server.handle(Echo())
            servers.append(server)
        client = self.make(fleet)
        async with running(fleet, *servers, client):
            request = shoal.Request("echo", "Echo.Unary", Item(), Item)
            for _ in range(5):
                await within(client.call(request, filters=[filters.version("2")]))
            assert [server.requests for server in servers] == [0, 5]
            for _ in range(5):
                await within(
                    client.call(
                        request,
                        strategy=lambda _, loads: next(
                            one for one in loads if one.node.id[-1] == "1"
                        ),
                    )
                )
            assert [server.requests for server in servers] == [5, 5]

    async def test_streams_send_receive_and_half_close(self) -> None:
        async with self.calling() as (client, _, _), asyncio.timeout(WAIT):
            async with client.stream(shoal.Request("echo", "Echo.Chat", None, Item)) as stream:
                await stream.send(Item("a"))
                assert (await stream.recv()).text == "got a"
                await stream.close_send()
                with pytest.raises(ConnectionClosed):
                    await stream.send(Item("b"))
                assert [item.text async for item in stream] == ["bye"]
                with pytest.raises(EndOfStream):
                    await stream.recv()

    async def test_a_message_in_the_request_is_the_first_item(self) -> None:
        async with self.calling() as (client, _, _), asyncio.timeout(WAIT):
            request = shoal.Request("echo", "Echo.Count", Item("x", 2), Item)
            async with client.stream(request) as stream:
                assert [item.number async for item in stream] == [0, 1]

    async def test_a_stream_has_a_deadline_if_it_is_given_one(self) -> None:
        async with self.calling() as (client, handler, _):
            request = shoal.Request("echo", "Echo.Endless", Item(), Item)
            with pytest.raises(shoal.Timeout):
                async with client.stream(request, timeout=0.05) as stream, asyncio.timeout(WAIT):
                    async for _ in stream:
                        pass
            await within(handler.cancelled.wait())

    async def test_what_the_block_of_a_stream_raises_is_what_arrives(self) -> None:
        async with self.calling() as (client, handler, _):
            request = shoal.Request("echo", "Echo.Endless", Item(), Item)
            with pytest.raises(ZeroDivisionError):
                async with client.stream(request) as stream:
                    await within(stream.recv())
                    raise ZeroDivisionError
            await within(handler.cancelled.wait())

    async def test_closing_a_stream_wakes_who_receives(self) -> None:
        async with self.calling() as (client, handler, _):
            async with client.stream(shoal.Request("echo", "Echo.Chat", None, Item)) as stream:
                receiving = asyncio.ensure_future(stream.recv())
                await within(handler.started.wait())
                await within(stream.close())
                with pytest.raises(ConnectionClosed):
                    await within(receiving)

    async def test_a_node_that_is_gone_costs_nothing_while_another_is_there(self) -> None:
        fleet = self.make_fleet()
        handler = Echo()
        server = fleet.server("echo", id="alive")
        server.handle(handler)
        client = self.make(fleet)
        dead = Node("echo-a-dead", "127.0.0.1:1", {"protocol": "mucp"})
        async with running(fleet, server, client):
            await fleet.registry.register(Record("echo", nodes=(dead,)))
            for _ in range(4):
                request = shoal.Request("echo", "Echo.Unary", Item("a"), Item)
                assert await within(client.call(request)) == Item("got a", 1)
            assert handler.calls == 4

    async def test_a_node_nobody_listens_at_is_named(self) -> None:
        fleet = self.make_fleet()
        client = self.make(fleet)
        dead = Node("echo-dead", "127.0.0.1:1", {"protocol": "mucp"})
        async with running(fleet, client):
            await fleet.registry.register(Record("echo", nodes=(dead,)))
            with pytest.raises(shoal.Unavailable, match=r"echo.*127\.0\.0\.1:1"):
                await within(client.call(shoal.Request("echo", "Echo.Unary", Item(), Item)))

    async def test_a_node_that_refuses_before_the_handler_ran_costs_nothing(self) -> None:
        fleet = self.make_fleet()
        handlers = [Echo(), Echo()]
        servers = [fleet.server("echo", id=str(number)) for number in range(2)]
        for server, handler in zip(servers, handlers, strict=True):
            server.handle(handler)
        client = self.make(fleet)
        async with running(fleet, *servers, client):
            servers[0].refusing = True
            for _ in range(4):
                request = shoal.Request("echo", "Echo.Unary", Item("a"), Item)
                assert await within(client.call(request)) == Item("got a", 1)
            assert [handler.calls for handler in handlers] == [0, 4]

    async def test_what_may_have_started_is_not_sent_twice(self) -> None:
        async with self.vanishing() as (client, seen):
            request = shoal.Request("echo", "Echo.Unary", Item(), Item)
            with pytest.raises(ConnectionClosed):
                await within(client.call(request))
            assert len(seen) == 1

    async def test_what_is_idempotent_is_sent_again(self) -> None:
        async with self.vanishing() as (client, seen):
            request = shoal.Request("echo", "Echo.Unary", Item(), Item)
            with pytest.raises(ConnectionClosed):
                await within(client.call(request, idempotent=True, retries=2))
            assert len(seen) == 3

    @asynccontextmanager
    async def vanishing(self) -> AsyncIterator[tuple[Client, list[Message]]]:
        """Give a client of a service that takes every request and closes without an answer."""
        fleet = self.make_fleet()
        seen: list[Message] = []

        async def accept(socket: Socket) -> None:
            seen.append(await socket.recv())

        listener: Listener = await fleet.transport.listen("127.0.0.1:0", accept)
        node = Node("echo-1", listener.address, {"protocol": "mucp"})
        await fleet.registry.register(Record("echo", nodes=(node,)))
        client = self.make(fleet)
        async with running(fleet, client):
            try:
                yield client, seen
            finally:
                await listener.close()

    async def test_an_idle_connection_that_was_closed_is_made_anew(self) -> None:
        fleet = self.make_fleet()
        client = self.make(fleet)
        request = shoal.Request("echo", "Echo.Unary", Item("a"), Item)
        async with running(fleet, client):
            for _ in range(2):
                handler = Echo()
                server = fleet.server("echo", id="1")
                server.handle(handler)
                await server.start()
                try:
                    reply = await within(client.call(request, address=server.address))
                    assert reply == Item("got a", 1)
                finally:
                    await server.stop()

    async def test_middleware_sees_calls_streams_and_events(self) -> None:
        steps: list[str] = []

        async def note(call: Call, next: Next) -> Any:
            steps.append(f"{call.side} {call.service} {call.endpoint} {call.stream}")
            call.header["Noted"] = "yes"
            return await next(call)

        async def change(call: Call, next: Next) -> Any:
            if isinstance(call.message, Item):
                call.message = Item("changed")
            return await next(call)

        async with self.calling(middleware=[note, change]) as (client, _, _):
            request = shoal.Request("echo", "Echo.Unary", Item("a"), Item)
            assert await within(client.call(request)) == Item("got changed", 1)
            assert request.message == Item("a")
            metadata = shoal.Request("echo", "Echo.Metadata", {}, dict[str, str])
            assert (await within(client.call(metadata)))["Noted"] == "yes"
            async with client.stream(shoal.Request("echo", "Echo.Count", None, Item)):
                pass
            await within(client.publish("topic", {"a": 1}))
        assert steps == [
            "client echo Echo.Unary False",
            "client echo Echo.Metadata False",
            "client echo Echo.Count True",
            "publisher  topic False",
        ]

    async def test_publishing_encodes_by_type_and_carries_metadata(self) -> None:
        fleet = self.make_fleet()
        got: asyncio.Queue[Message] = asyncio.Queue()

        async def deliver(message: Message) -> None:
            got.put_nowait(message)

        client = self.make(fleet)
        async with running(fleet, client):
            await fleet.broker.connect()
            await fleet.broker.subscribe("news", deliver)
            with shoal.with_metadata(one="1"):
                await client.publish("news", Item("n"), metadata={"Two": "2"})
            message = await within(got.get())
            assert message.body.rstrip() == b'{"text":"n","number":0}'
            header = message.header
            assert (header["Micro-Topic"], header["Content-Type"]) == ("news", "application/json")
            assert (header["One"], header["Two"]) == ("1", "2")
            assert header["Micro-Id"]

    async def test_a_node_that_speaks_another_protocol_is_refused(self) -> None:
        fleet = self.make_fleet()
        client = self.make(fleet)
        node = Node("echo-1", "127.0.0.1:1", {"protocol": "smoke"})
        async with running(fleet, client):
            await fleet.registry.register(Record("echo", nodes=(node,)))
            with pytest.raises(shoal.Unavailable, match="smoke"):
                await within(client.call(shoal.Request("echo", "Echo.Unary", Item(), Item)))
