"""Module server is the suite every server passes: what the contract's docstrings promise.

    class TestZebra(ServerConformance):
        def make(self, fleet: Fleet, name: str, **settings: Any) -> Server:
            return ZebraServer(name, **fleet.parts(), registry=fleet.registry)

The tests are coroutines: run them with pytest-asyncio in auto mode.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import shoal
from shoal.errors import ConnectionClosed
from shoal.message import Message
from shoal.middleware import Call, Next
from shoal.testing.conformance._fleet import (
    WAIT,
    Echo,
    Fleet,
    Item,
    no_tasks_since,
    running,
    within,
)
from shoal.testing.conformance._server_streams import ServerStreams

__all__ = ["Fleet", "ServerConformance"]


class ServerConformance(ServerStreams):
    """A server of one kind, called by the reference client."""

    async def test_unary(self) -> None:
        async with self.serving() as (echo, _, _):
            assert await within(echo.unary(Item("a", 1))) == Item("got a", 2)
            assert await within(echo.nothing()) is None

    async def test_a_blocking_handler_runs_beside_others_and_knows_its_call(self) -> None:
        async with self.serving() as (echo, _, _):
            with shoal.with_metadata(colour="red"):
                # A stub has the handler's types; what it returns is awaited all the same.
                reply: Any = echo.blocking(Item("", 5))
                assert await within(reply) == Item("red", 5)

    @pytest.mark.parametrize("code", [400, 401, 403, 404, 405, 408, 409, 429, 500, 501, 503, 418])
    async def test_an_error_arrives_as_it_was_raised(self, code: int) -> None:
        async with self.serving() as (echo, _, _):
            with pytest.raises(shoal.Error) as caught:
                await within(echo.failing(Item("bad \nname é", code)))
            error = caught.value
            assert (error.code, error.id, error.detail) == (code, "some.id", "bad \nname é")
            if code == 400:
                assert type(error) is shoal.BadRequest

    async def test_a_plain_error_keeps_its_text(self) -> None:
        async with self.serving() as (echo, _, _):
            with pytest.raises(shoal.Error) as caught:
                await within(echo.failing(Item("just text", 0)))
            assert caught.value.detail == "just text"

    async def test_an_unforeseen_error_says_nothing_of_the_inside(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with self.serving() as (echo, _, _):
            with pytest.raises(shoal.InternalServerError) as caught:
                await within(echo.surprising(Item()))
            assert "secret" not in str(caught.value)
            correlation = caught.value.detail.rpartition(" ")[2]
            assert correlation in caplog.text
            assert await within(echo.unary(Item("a"))) == Item("got a", 1)

    @pytest.mark.parametrize(
        ("endpoint", "kind"),
        [
            ("Echo.Nope", shoal.NotFound),
            ("Nope.Unary", shoal.NotFound),
            ("Echo", shoal.BadRequest),
            ("Echo.Unary.More", shoal.BadRequest),
        ],
    )
    async def test_unknown_endpoints(self, endpoint: str, kind: type[shoal.Error]) -> None:
        async with self.serving() as (echo, _, client):
            with pytest.raises(kind):
                await within(client.call(shoal.Request("echo", endpoint, {}, dict)))
            assert await within(echo.unary(Item("a"))) == Item("got a", 1)

    async def test_a_wrong_field_is_named(self) -> None:
        async with self.serving() as (_, _, client):
            with pytest.raises(shoal.BadRequest, match="number"):
                await within(
                    client.call(shoal.Request("echo", "Echo.Unary", {"number": "x"}, Item))
                )

    async def test_an_unknown_content_type_names_the_known_ones(self) -> None:
        fleet = self.make_fleet()
        server = self.make(fleet, "echo")
        server.handle(Echo())
        async with running(fleet, server), asyncio.timeout(WAIT):
            socket = await fleet.transport.dial(server.address)
            header = {"Micro-Endpoint": "Echo.Unary", "Content-Type": "text/xml"}
            await socket.send(Message(header, b"<x/>"))
            reply = await socket.recv()
            assert "application/json" in reply.header["Micro-Error"]
            await socket.send(
                Message({**header, "Content-Type": "application/json; charset=utf-8"}, b"{}")
            )
            assert (await socket.recv()).header.get("Micro-Error", "") == ""
            await socket.close()

    async def test_metadata_reaches_the_handler_and_what_it_calls(self) -> None:
        async with self.serving() as (echo, _, _):
            with shoal.with_metadata({"Foo-Bar": "bäz"}, other="x"):
                seen = await within(echo.metadata(Item()))
            assert (seen["Foo-Bar"], seen["Other"]) == ("bäz", "x")

    async def test_what_one_handler_sets_the_next_does_not_see(self) -> None:
        async with self.serving() as (echo, _, _):
            assert [await within(echo.leaking(Item(text))) for text in "ab"] == ["clean"] * 2

    async def test_asyncio_timeouts_work_inside_handlers(self) -> None:
        async with self.serving() as (echo, _, _):
            assert await within(echo.timed(Item())) == "timed out"

    async def test_the_deadline_arrives_and_ends_the_handler(self) -> None:
        async with self.serving() as (echo, handler, client):
            with shoal.deadline(5):
                assert 0 < await within(echo.remaining(Item())) <= 5
            request = shoal.Request("echo", "Echo.Waiting", Item(), Item)
            with pytest.raises(shoal.Timeout):
                await within(client.call(request, timeout=0.05))
            await within(handler.cancelled.wait())

    async def test_a_caller_that_gives_up_ends_the_handler(self) -> None:
        async with self.serving() as (echo, handler, _):
            call = asyncio.ensure_future(echo.waiting(Item()))
            await within(handler.started.wait())
            call.cancel()
            await within(handler.cancelled.wait())
            assert call.cancelled() or await asyncio.wait([call])

    async def test_over_the_limit_calls_are_refused_at_once(self) -> None:
        async with self.serving(concurrency=1) as (echo, handler, _):
            first = asyncio.ensure_future(echo.waiting(Item("x")))
            await within(handler.started.wait())
            with pytest.raises(shoal.TooManyRequests):
                await within(echo.unary(Item()))
            handler.release.set()
            assert await within(first) == Item("x")

    async def test_stopping_finishes_what_runs(self) -> None:
        fleet = self.make_fleet()
        handler = Echo()
        server = self.make(fleet, "echo")
        server.handle(handler)
        client = fleet.client()
        async with running(fleet, server, client):
            call = asyncio.ensure_future(
                client.call(shoal.Request("echo", "Echo.Waiting", Item("x"), Item))
            )
            await within(handler.started.wait())
            stopping = asyncio.ensure_future(server.stop())
            await asyncio.sleep(0.02)
            assert not await fleet.registry.get("echo")
            handler.release.set()
            assert await within(call) == Item("x")
            await within(stopping)

    async def test_stopping_cancels_what_does_not_end(self) -> None:
        async with self.serving(grace=0.05) as (echo, handler, _):
            call = asyncio.ensure_future(echo.waiting(Item("x")))
            await within(handler.started.wait())
        assert handler.cancelled.is_set()
        with pytest.raises(shoal.Error):
            await within(call)

    async def test_a_server_starts_again_after_it_stopped(self) -> None:
        fleet = self.make_fleet()
        server = self.make(fleet, "echo")
        server.handle(Echo())
        client = fleet.client()
        echo = shoal.stub(Echo, "echo", client)
        before = asyncio.all_tasks()
        for _ in range(2):
            await within(server.start())
            assert await within(echo.unary(Item("a"))) == Item("got a", 1)
            await within(server.stop())
        await client.close()
        await fleet.selector.close()
        await no_tasks_since(before)

    async def test_what_was_done_is_undone_if_starting_fails(self) -> None:
        fleet = self.make_fleet()
        server = self.make(fleet, "echo", address="127.0.0.1:0")
        server.handle(Echo())

        async def refuse(topic: str, deliver: object, *, queue: str = "") -> Any:
            raise shoal.Unavailable("the broker is away")

        async def take(event: dict[str, Any]) -> None:
            raise AssertionError("nothing is delivered")

        server.subscribe("topic", take)
        fleet.broker.subscribe = refuse  # type: ignore[method-assign]  # it fails in mid-start
        before = asyncio.all_tasks()
        with pytest.raises(shoal.Unavailable, match="away"):
            await within(server.start())
        assert not await fleet.registry.services()
        await no_tasks_since(before)

    async def test_it_registers_what_tools_need(self) -> None:
        fleet = self.make_fleet()
        server = self.make(fleet, "echo", version="1.2", id="7", metadata={"zone": "a"})
        server.handle(Echo())
        async with running(fleet, server):
            (record,) = await fleet.registry.get("echo")
            (node,) = record.nodes
            assert (record.version, node.id) == ("1.2", "echo-7")
            assert node.metadata["protocol"] == "mucp"
            assert node.metadata["zone"] == "a"
            endpoints = {endpoint.name: endpoint for endpoint in record.endpoints}
            assert "Debug.Health" not in endpoints
            assert endpoints["Echo.Unary"].metadata["description"] == "Give the request back."
            assert endpoints["Echo.Count"].metadata["stream"] == "true"
            request = endpoints["Echo.Unary"].request
            assert request is not None
            assert [(value.name, value.type) for value in request.values] == [
                ("text", "string"),
                ("number", "int64"),
            ]

    async def test_events_reach_subscribers(self) -> None:
        fleet = self.make_fleet()
        server = self.make(fleet, "echo")
        got: list[tuple[str, Item, str]] = []
        all_came = asyncio.Event()

        def taker(name: str) -> Any:
            async def take(event: Item) -> None:
                got.append((name, event, shoal.metadata().get("Colour") or ""))
                if len(got) == 3:
                    all_came.set()
                if name == "bad":
                    raise ValueError("a subscriber fails")

            return take

        server.subscribe("news", taker("good"))
        server.subscribe("news", taker("bad"))
        server.subscribe("other", taker("other"), queue="q")
        client = fleet.client()
        async with running(fleet, server, client):
            with shoal.with_metadata(colour="red"):
                await client.publish("news", Item("n"))
            await client.publish("other", Item("o"))
            await within(all_came.wait())
        assert sorted(got, key=lambda one: one[0]) == [
            ("bad", Item("n"), "red"),
            ("good", Item("n"), "red"),
            ("other", Item("o"), ""),
        ]

    async def test_middleware_runs_in_the_order_listed(self) -> None:
        steps: list[str] = []

        def named(name: str) -> Any:
            async def middleware(call: Call, next: Next) -> Any:
                steps.append(f"{name} {call.side} {call.endpoint} {call.stream}")
                try:
                    return await next(call)
                finally:
                    steps.append(f"{name} ends")

            return middleware

        async with self.serving(middleware=[named("a"), named("b")]) as (echo, _, _):
            await within(echo.unary(Item()))
            assert [item async for item in echo.count(Item("x", 1))] == [Item("x", 0)]
        one = ["a server Echo.Unary False", "b server Echo.Unary False", "b ends", "a ends"]
        two = ["a server Echo.Count True", "b server Echo.Count True", "b ends", "a ends"]
        assert steps == one + two

    async def test_middleware_can_refuse(self) -> None:
        async def refuse(call: Call, next: Next) -> Any:
            raise shoal.Unauthorized("who are you?")

        async with self.serving(middleware=[refuse]) as (echo, handler, _):
            with pytest.raises(shoal.Unauthorized):
                await within(echo.unary(Item()))
            assert handler.calls == 0

    async def test_debug_endpoints(self) -> None:
        async with self.serving() as (echo, _, client):
            await within(echo.unary(Item()))

            def ask(endpoint: str) -> Any:
                return within(client.call(shoal.Request("echo", endpoint, {}, dict[str, Any])))

            assert (await ask("Debug.Health"))["status"] == "ok"
            stats = await ask("Debug.Stats")
            assert stats["requests"] >= 2
            spans = (await ask("Debug.Trace"))["spans"]
            assert "Echo.Unary" in [span["name"] for span in spans]

    async def test_a_handler_that_cannot_be_served_is_named(self) -> None:
        class Untyped:
            async def hello(self, request):  # type: ignore[no-untyped-def]  # that is the point
                return request

        server = self.make(self.make_fleet(), "echo")
        with pytest.raises(TypeError, match=r"Untyped\.hello"):
            server.handle(Untyped())

    async def test_garbage_ends_its_connection_only(self) -> None:
        fleet = self.make_fleet()
        server = self.make(fleet, "echo")
        server.handle(Echo())
        client = fleet.client()
        echo = shoal.stub(Echo, "echo", client)
        async with running(fleet, server, client), asyncio.timeout(WAIT):
            socket = await fleet.transport.dial(server.address)
            for header in (
                {},
                {"Micro-Endpoint": "Echo.Unary"},
                {"Content-Type": "application/json"},
                {"Micro-Endpoint": "Echo.Unary", "Content-Type": "application/json"},
                {"Micro-Endpoint": "Echo.Count", "Content-Type": "application/json"},
            ):
                await socket.send(Message(header, b"\x00garbage\xff"))
                if header.get("Micro-Endpoint") != "Echo.Count":
                    assert (await socket.recv()).header["Micro-Error"]
            await socket.send(Message({"Content-Type": "application/json"}, b"]"))
            assert (await socket.recv()).header["Micro-Error"]
            await socket.close()
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            assert await echo.unary(Item("a")) == Item("got a", 1)
