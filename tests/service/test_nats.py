"""A service whose registry, broker and transport are all NATS, unchanged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import shoal
from shoal.errors import TooLarge
from shoal.options import Options
from tests.servers import Background, need
from tests.servers.nats import NatsServer


@dataclass
class Item:
    text: str = ""
    number: int = 0


class Shop:
    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def unary(self, item: Item) -> Item:
        return Item(f"got {item.text}", item.number + 1)

    async def big(self, item: Item) -> str:
        return "x" * item.number

    async def waiting(self, item: Item) -> Item:
        self.started.set()
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled.set()
        return item

    async def count(self, item: Item) -> AsyncIterator[Item]:
        for number in range(item.number):
            yield Item(item.text, number)

    async def endless(self, item: Item) -> AsyncIterator[Item]:
        try:
            while True:
                yield item
                await asyncio.sleep(0.001)
        finally:
            self.cancelled.set()

    async def total(self, items: AsyncIterator[Item]) -> int:
        return sum([item.number async for item in items])


class Events:
    def __init__(self) -> None:
        self.heard: asyncio.Queue[Item] = asyncio.Queue()

    async def on_event(self, item: Item) -> None:
        self.heard.put_nowait(item)


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    need(NatsServer)
    running = NatsServer()
    with Background(running):
        yield running


def everything(server: NatsServer) -> dict[str, Any]:
    return {"registry": server.url, "broker": server.url, "transport": server.url}


def call(endpoint: str, text: str = "", number: int = 0, reply: Any = Item) -> shoal.Request[Any]:
    return shoal.Request("shop", f"Shop.{endpoint}", Item(text, number), reply)


async def test_calls_streams_and_events_by_name_alone(server: NatsServer) -> None:
    shop, events = Shop(), Events()
    service = shoal.Service("shop", **everything(server))
    service.handle(shop)
    service.subscribe("sold", events.on_event, queue="mail")
    async with asyncio.timeout(60), service:
        assert service.server.address.startswith("_INBOX.")
        profile = {"profile": "nats", "nats_address": server.url}
        async with shoal.connect(**profile) as client:  # type: ignore[arg-type]  # all are texts
            assert await client.call(call("Unary", "a", 1)) == Item("got a", 2)
            async with client.stream(call("Count", "b", 50)) as stream:
                assert [item.number async for item in stream] == list(range(50))
            total = shoal.Request("shop", "Shop.Total", None, int)
            async with client.stream(total) as adding:
                for number in range(10):
                    await adding.send(Item("", number))
                await adding.close_send()
                assert [reply async for reply in adding] == [45]
            calls = (client.call(call("Unary", str(number))) for number in range(100))
            replies = await asyncio.gather(*calls)
            assert [reply.text for reply in replies] == [f"got {number}" for number in range(100)]
            await client.publish("sold", Item("c"))
            assert await events.heard.get() == Item("c")


async def test_who_stops_waiting_stops_the_handler(server: NatsServer) -> None:
    shop = Shop()
    service = shoal.Service("shop", **everything(server))
    service.handle(shop)
    async with asyncio.timeout(60), service, shoal.connect(**everything(server)) as client:
        with pytest.raises(shoal.Timeout):
            await client.call(call("Waiting"), timeout=0.5)
        await shop.cancelled.wait()
        shop.started.clear()
        shop.cancelled.clear()
        waiting = asyncio.create_task(client.call(call("Waiting")))
        await shop.started.wait()
        waiting.cancel()
        await shop.cancelled.wait()
        shop.cancelled.clear()
        async with client.stream(call("Endless")) as stream:
            async for _ in stream:
                break
        await shop.cancelled.wait()


async def test_what_is_too_large_for_nats_is_an_error_of_the_call(server: NatsServer) -> None:
    service = shoal.Service("shop", **everything(server))
    service.handle(Shop())
    async with asyncio.timeout(60), service, shoal.connect(**everything(server)) as client:
        assert len(await client.call(call("Big", number=700_000, reply=str))) == 700_000
        with pytest.raises(TooLarge, match="which takes 1048576"):
            await client.call(call("Big", number=2_000_000, reply=str))
        with pytest.raises(TooLarge, match="which takes 1048576"):
            await client.call(call("Unary", "x" * 2_000_000))
        assert await client.call(call("Unary", "a")) == Item("got a", 1)


async def test_a_restarted_server_costs_nothing_but_the_time(server: NatsServer) -> None:
    need(NatsServer)
    async with NatsServer() as server:
        events = Events()
        service = shoal.Service("shop", **everything(server))
        service.handle(Shop())
        service.subscribe("sold", events.on_event)
        async with asyncio.timeout(60), service, shoal.connect(**everything(server)) as client:
            for turn in range(3):
                assert await client.call(call("Unary", "a")) == Item("got a", 1)
                await client.publish("sold", Item("b", turn))
                while await events.heard.get() != Item("b", turn):
                    pass  # the rest of the turn before
                await server.restart()
                heard: list[Item] = []
                while Item("again", turn) not in heard:  # who is not connected yet misses it
                    try:
                        await client.call(call("Unary", "a"), timeout=2)
                        await client.publish("sold", Item("again", turn))
                        heard.append(await asyncio.wait_for(events.heard.get(), 0.5))
                    except (shoal.Unavailable, shoal.Timeout, TimeoutError):
                        await asyncio.sleep(0.05)


async def test_events_through_jetstream_wait_for_a_service(server: NatsServer) -> None:
    stored = {**everything(server), "broker": f"jetstream://{server.address}"}
    async with asyncio.timeout(60):
        for turn in range(2):
            events = Events()
            service = shoal.Service("ears", **stored)
            service.subscribe("stored", events.on_event, queue="mail")
            async with service:
                if turn:
                    assert await events.heard.get() == Item("stored", 1)
                await service.client.publish("stored", Item("now", turn))
                assert await events.heard.get() == Item("now", turn)
            async with shoal.connect(**stored) as client:
                await client.publish("stored", Item("stored", turn + 1))


async def test_no_server_is_one_sentence_and_leaves_nothing() -> None:
    nobody = "nats://me:secret@127.0.0.1:1"
    service = shoal.Service("shop", registry=nobody, broker=nobody, transport=nobody)
    service.handle(Shop())
    with pytest.raises(shoal.Unavailable, match="no connection to NATS") as caught:
        async with service:
            pass
    assert "secret" not in repr(caught.value)
    assert len(asyncio.all_tasks()) == 1


def test_the_profile_and_the_environment_choose_all_three() -> None:
    environment = {"MICRO_PROFILE": "nats", "MICRO_NATS_ADDRESS": "nats://10.0.0.1:4222"}
    options = Options().read(["--broker", "jetstream"], environment)
    assert options.plugin("registry") == ("nats", "nats://10.0.0.1:4222")
    assert options.plugin("transport") == ("nats", "nats://10.0.0.1:4222")
    assert options.plugin("broker") == ("jetstream", "")
