"""Tests of the registry over NATS, with a real server."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeout

from shoal.errors import Unavailable
from shoal.registry import Change, Registry
from shoal.registry._records import from_go
from shoal.registry.nats import GENERATIONS, NatsRegistry, NatsSettings
from shoal.testing.conformance._registry import end, make_record, step, unique
from shoal.testing.conformance.registry import RegistryConformance
from tests.servers import Background, Note, need
from tests.servers._gate import Gate
from tests.servers.nats import NatsServer

RESTARTS = int(os.environ.get("SHOAL_RESTARTS", "3"))


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    need(NatsServer)
    with Background(NatsServer()) as running:
        assert isinstance(running, NatsServer)
        yield running


class TestNats(RegistryConformance):
    watch_delay = None

    @pytest.fixture(autouse=True)
    def _server(self, server: NatsServer) -> None:
        self.address = server.url

    def make(self) -> Registry:
        return NatsRegistry(self.address)


@asynccontextmanager
async def registries(*made: NatsRegistry) -> AsyncIterator[None]:
    async with asyncio.timeout(60 + 10 * RESTARTS):
        try:
            yield
        finally:
            for registry in made:
                await registry.close()


@asynccontextmanager
async def stranger(server: NatsServer) -> AsyncIterator[Client]:
    """Talk to the server as a program that is not Shoal."""
    client = Client()
    await client.connect(server.url)
    try:
        yield client
    finally:
        await client.close()


async def becomes(look: Callable[[], Awaitable[object]], expected: object) -> None:
    async with asyncio.timeout(30):
        while (found := await look()) != expected:  # noqa: ASYNC110  # any state
            await asyncio.sleep(0.02)
    assert found == expected


GO = {
    "name": "helloworld", "version": "1.0.0", "metadata": None,
    "endpoints": [{"request": {"name": "Req", "type": "Req", "values": None}, "response": None,
                   "metadata": {}, "name": "Greeter.Hello"}],
    "nodes": [{"metadata": {"protocol": "mucp"}, "id": "helloworld-1",
               "address": "_INBOX.0123456789012345678901"}],
}  # fmt: skip


# The format


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_questions_of_go_micro_are_answered(server: NatsServer, generation: str) -> None:
    registry, name = NatsRegistry(server.url), unique()
    async with registries(registry), stranger(server) as client:
        for version, node in (("1", "a"), ("1", "b"), ("2", "c")):
            await registry.register(make_record(name, node, version=version))
        await registry.register(make_record(f"{name}-other"))
        answers = await client.subscribe("answers")
        for question, expected in (
            ({"Action": "get", "Service": {"name": name, "nodes": None}}, 2),
            ({"Action": "list", "Service": None}, 3),
            ({"Action": "get", "Service": {"name": "another"}}, 0),
            ({"Action": "put", "Service": None}, 0),
        ):
            payload = json.dumps(question).encode()
            await client.publish(f"{generation}.query", payload, reply="answers")
            got = [json.loads((await answers.next_msg(5)).data) for _ in range(expected)]
            if expected == 2:
                nodes = {one["version"]: [node["id"] for node in one["nodes"]] for one in got}
                assert nodes == {"1": ["a", "b"], "2": ["c"]}
                assert all(one["name"] == name for one in got)
        await client.flush()
        with pytest.raises(NatsTimeout):
            await answers.next_msg(0.2)


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_answers_of_go_micro_are_understood(server: NatsServer, generation: str) -> None:
    registry = NatsRegistry(server.url)
    asked: list[dict[str, Any]] = []

    async def answer(message: Msg) -> None:
        asked.append(json.loads(message.data))
        for data in (b"no JSON", b"null", b'{"name":1}', json.dumps(GO).encode()):
            await client.publish(message.reply, data)

    async with registries(registry), stranger(server) as client:
        await client.subscribe(f"{generation}.query", cb=answer)
        await client.flush()
        (record,) = await registry.get("helloworld")
        assert record == from_go(GO)
        assert "helloworld" in await registry.services()
        assert await registry.get("another") == []
        assert [one["Action"] for one in asked] == ["get", "list", "get"]
        nothing = {"version": "", "metadata": None, "endpoints": None, "nodes": None}
        assert asked[0]["Service"] == {"name": "helloworld", **nothing}
        assert asked[1]["Service"] is None


@pytest.mark.parametrize("generation", GENERATIONS)
async def test_news_are_go_micros(server: NatsServer, generation: str) -> None:
    registry, record = NatsRegistry(server.url), make_record(unique())
    async with registries(registry), stranger(server) as client:
        news = await client.subscribe(f"{generation}.watch")
        await client.flush()
        await registry.register(record, ttl=90)
        await registry.register(record, ttl=90)
        await registry.deregister(record)
        said = [json.loads((await news.next_msg(5)).data) for _ in range(3)]
        assert [one["Action"] for one in said] == ["create", "create", "delete"]
        assert [from_go(one["Service"]) for one in said] == [record] * 3

        watch = registry.watch("helloworld")
        first = asyncio.ensure_future(step(watch))
        await asyncio.sleep(0)
        for action in ("put", "nonsense", "delete"):
            payload = json.dumps({"Action": action, "Service": GO}).encode()
            await client.publish(f"{generation}.watch", payload)
        await client.publish(f"{generation}.watch", b"no JSON")
        assert (await first) == Change("update", from_go(GO))
        assert (await anext(watch)) == Change("delete", from_go(GO))
        await end(watch)


async def test_shoal_asks_and_tells_both_generations_and_hears_each_once(
    server: NatsServer,
) -> None:
    one, other, record = NatsRegistry(server.url), NatsRegistry(server.url), make_record(unique())
    old = NatsRegistry(server.url, generations=GENERATIONS[1:])
    async with registries(one, other, old), stranger(server) as client:
        await old.services()
        changes: dict[NatsRegistry, list[Change]] = {other: [], old: []}

        async def collect(registry: NatsRegistry) -> None:
            async for change in registry.watch(record.name):
                changes[registry].append(change)

        collecting = [asyncio.create_task(collect(registry)) for registry in changes]
        await other.services()
        await asyncio.sleep(0.2)
        await one.register(record)
        assert await other.get(record.name) == await old.get(record.name) == [record]
        replies = await client.subscribe("replies.*")
        payload = json.dumps(
            {"Action": "list", "Subjects": [f"{generation}.query" for generation in GENERATIONS]}
        ).encode()
        for generation in GENERATIONS:
            await client.publish(f"{generation}.query", payload, reply="replies.1")
        assert json.loads((await replies.next_msg(5)).data)["name"] == record.name
        with pytest.raises(NatsTimeout):
            await replies.next_msg(0.2)
        assert {registry: len(got) for registry, got in changes.items()} == {other: 1, old: 1}
        await asyncio.gather(other.close(), old.close())
        await asyncio.gather(*collecting)


# Look-ups


async def test_a_look_up_ends_with_enough_answers_or_when_nobody_listens(
    server: NatsServer,
) -> None:
    loop, name = asyncio.get_running_loop(), unique()
    patient = NatsRegistry(server.url, timeout=30, quorum=2)
    nobody = NatsRegistry(server.url, timeout=30, generations=[f"nobody.{name}"])
    other = NatsRegistry(server.url)
    async with registries(patient, nobody, other):
        await patient.register(make_record(name, "a"))
        await other.register(make_record(name, "b", address="10.0.0.2:80"))
        begun = loop.time()
        (record,) = await patient.get(name)
        assert [node.id for node in record.nodes] == ["a", "b"]
        assert loop.time() - begun < 20


async def test_who_is_gone_does_not_answer(server: NatsServer) -> None:
    """A process that dies has no time to say so."""
    async with Gate(server.port) as gate:
        here, there, name = NatsRegistry(server.url), NatsRegistry(gate.address), unique()
        async with registries(here, there):
            watch = here.watch(name)
            first = asyncio.ensure_future(step(watch))
            await asyncio.sleep(0.2)
            await there.register(make_record(name), ttl=0.5)
            change = await first
            assert change is not None
            assert change.action == "create"
            await gate.cut()
            await becomes(lambda: here.get(name), [])
            gone = await anext(watch)  # after its time to live
            assert gone.action == "delete"
            assert [node.id for node in gone.record.nodes] == ["a"]
            await end(watch)


# Coming back


async def test_registrations_and_watches_are_there_again_after_restarts(
    record_property: Note,
) -> None:
    need(NatsServer)
    async with NatsServer() as server:
        here, there, record = NatsRegistry(server.url), NatsRegistry(server.url), make_record("a")
        async with registries(here, there):
            await there.register(record, ttl=600)
            for turn in range(RESTARTS):
                watch = here.watch()
                first = asyncio.ensure_future(step(watch))
                await becomes(lambda: here.get("a"), [record])
                await server.restart()
                with pytest.raises(Unavailable):  # changes may have been missed
                    async with asyncio.timeout(20):
                        await first
                        while True:
                            await anext(watch)
                again = here.watch()
                seen = asyncio.ensure_future(step(again))
                await becomes(lambda: _found(here), [record])
                await there.register(replace(record, version=str(turn)))
                while (change := await seen) and change.record.version != str(turn):
                    seen = asyncio.ensure_future(step(again))
                await end(again)
                await there.register(record, ttl=600)
                assert here.error is there.error is None
            assert len((await here.get("a"))[0].nodes) == 1
    record_property("restarts", RESTARTS)


async def _found(registry: NatsRegistry) -> object:
    try:
        return await registry.get("a")
    except Unavailable:
        return None


async def test_its_state_is_visible_while_the_server_is_away() -> None:
    need(NatsServer)
    async with NatsServer() as server:
        registry = NatsRegistry(server.url, settings=NatsSettings(patience=0.2))
        async with registries(registry):
            await registry.register(make_record("a"))
            assert "connected to" in repr(registry)
            await server.stop()
            for look in (
                registry.get("a"),
                registry.services(),
                registry.register(make_record("b")),
            ):
                with pytest.raises(Unavailable):
                    await look
            assert isinstance(registry.error, Unavailable)
            await server.start()
            await becomes(lambda: _found(registry), [make_record("a")])
            assert await registry.services() == ["a", "b"]


async def test_nobody_there_is_one_sentence() -> None:
    registry = NatsRegistry("me:secret@127.0.0.1:1")
    async with registries(registry):
        with pytest.raises(Unavailable, match=r"no connection to NATS: 127\.0\.0\.1:1") as caught:
            await registry.get("a")
        assert "secret" not in f"{caught.value!r} {registry!r}"
