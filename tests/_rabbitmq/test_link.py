"""Tests of the connection to RabbitMQ: it comes back from everything, and says what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import aiormq
import pytest
from aiormq.abc import AbstractChannel

from shoal._rabbitmq import Consumer, Delivery, Link, Properties, RabbitSettings
from shoal._rabbitmq._client import _check
from shoal.errors import TooLarge, Unavailable
from tests.servers import Background, Note, free_ports, need
from tests.servers._gate import Gate
from tests.servers.rabbitmq import RabbitServer

DEADLINE = 40.0
RESTARTS = int(os.environ.get("SHOAL_RESTARTS", "3"))
QUICK = RabbitSettings(heartbeat=1, timeout=3.0)


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    need(RabbitServer)
    background = Background(RabbitServer())
    with background:
        yield background


@pytest.fixture
def server(background: Background) -> RabbitServer:
    assert isinstance(background.server, RabbitServer)
    return background.server


class Ear:
    """Consumes a queue of a name and keeps what comes."""

    def __init__(self, link: Link, queue: str) -> None:
        self.queue = queue
        self.bodies: list[bytes] = []
        self.consumer = Consumer(link, self.declare, self.take, no_ack=True)

    async def declare(self, channel: AbstractChannel) -> str:
        await channel.queue_declare(self.queue, auto_delete=True)
        await channel.queue_bind(self.queue, "micro", routing_key=self.queue)
        return self.queue

    def take(self, message: Delivery) -> None:
        self.bodies.append(message.body)


@contextlib.asynccontextmanager
async def listening(
    address: str, queue: str, settings: RabbitSettings = QUICK
) -> AsyncIterator[tuple[Link, Ear]]:
    """Give a connection with a consumer, and see that nothing is left of it."""
    before = asyncio.all_tasks()
    link = Link(address, settings, None, "test")
    ear = Ear(link, queue)
    try:
        async with asyncio.timeout((4 + RESTARTS) * DEADLINE):
            await link.open()
            await ear.consumer.start()
            yield link, ear
    finally:
        await ear.consumer.close()
        await link.close()
    for _ in range(10):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - before
    assert not [task for task in left if task.get_name() != Gate.TASK]


async def arrives(link: Link, ear: Ear, body: bytes) -> None:
    """Publish until it arrives, once."""
    async with asyncio.timeout(DEADLINE):
        while body not in ear.bodies:
            with contextlib.suppress(Unavailable):
                if await link.publish(ear.queue, body, Properties(), mandatory=True):
                    break
            await asyncio.sleep(0.05)
    await until(lambda: body in ear.bodies)
    await asyncio.sleep(0.05)
    assert ear.bodies.count(body) == 1
    assert link.error is None


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(DEADLINE):
        while not condition():  # noqa: ASYNC110  # any state
            await asyncio.sleep(0.01)


async def consumers(server: RabbitServer, queue: str) -> int:
    """Return how many consume a queue, as the server sees it."""
    listed = json.loads(await server.control("list_consumers", "--formatter", "json"))
    return sum(one["queue_name"] == queue for one in listed)


async def restarted(server: RabbitServer, background: Background) -> None:
    await asyncio.to_thread(background.run, server.restart)


async def killed(server: RabbitServer, background: Background) -> None:
    await asyncio.to_thread(background.run, server.kill)
    await asyncio.to_thread(background.run, server.start)


async def closed(server: RabbitServer, background: Background) -> None:
    await server.control("close_all_connections", "for the test")


async def frozen(server: RabbitServer, background: Background) -> None:
    server.freeze()
    try:
        await asyncio.sleep(4)
    finally:
        server.thaw()


async def deleted(server: RabbitServer, background: Background) -> None:
    await server.control("delete_queue", "test.deleted")


@pytest.mark.parametrize("outage", [restarted, killed, closed, frozen, deleted])
async def test_it_comes_back_with_its_consumer(
    outage: Callable[[RabbitServer, Background], Awaitable[None]],
    server: RabbitServer,
    background: Background,
    record_property: Note,
) -> None:
    queue = f"test.{outage.__name__}"
    async with listening(f"guest:guest@{server.address}", queue) as (link, ear):
        await arrives(link, ear, b"first")
        for turn in range(RESTARTS):
            await outage(server, background)
            await arrives(link, ear, b"after %d" % turn)
        assert await consumers(server, queue) == 1
        assert link.connections == (1 if outage is deleted else 1 + RESTARTS)
        assert f"connected to {server.address}" in repr(link)
        record_property("outages", RESTARTS)
        record_property("published", 1 + RESTARTS)
        record_property("arrived", len(ear.bodies))


async def test_a_connection_that_was_cut_is_made_again(server: RabbitServer) -> None:
    async with Gate(server.port) as gate:
        async with listening(f"guest:guest@{gate.address}", "test.cut") as (link, ear):
            lost: list[Exception] = []
            link.on_lost.append(lost.append)
            await arrives(link, ear, b"first")
            await gate.cut()
            await until(lambda: link.error)
            assert gate.address in str(link.error)
            assert "guest" not in str(link.error)
            assert "not connected" in repr(link)
            assert len(lost) == 1
            await gate.open()
            await until(lambda: link.error is None)
            await arrives(link, ear, b"second")
        await until(lambda: gate.connections == 0)


async def test_without_a_connection_what_needs_one_waits_and_fails(server: RabbitServer) -> None:
    settings = RabbitSettings(heartbeat=1, patience=0.2)
    async with Gate(server.port) as gate:
        async with listening(f"guest:guest@{gate.address}", "test.wait", settings) as (link, _):
            await gate.cut()
            await until(lambda: link.error)
            with pytest.raises(Unavailable) as caught:
                await link.publish("test.wait", b"", Properties())
            assert caught.value.id == "test"


async def test_a_rotated_password_is_asked_for_at_every_connection(server: RabbitServer) -> None:
    word = "one"
    await server.control("add_user", "rotated", word)
    await server.control("set_permissions", "rotated", ".*", ".*", ".*")
    settings = RabbitSettings(user="rotated", password=lambda: word, heartbeat=1)
    async with listening(server.address, "test.rotated", settings) as (link, ear):
        await arrives(link, ear, b"first")
        await server.control("change_password", "rotated", "two")
        await server.control("close_all_connections", "rotated")
        await until(lambda: "refuses these credentials" in str(link.error))
        word = "two"
        await arrives(link, ear, b"second")


async def refusal(address: str, settings: RabbitSettings | None = None) -> str:
    """Return what is said when there is no connection."""
    before = asyncio.all_tasks()
    link = Link(address, settings, None, "test")
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(Unavailable) as caught:
            await link.open()
    await link.close()
    for _ in range(10):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() <= before
    assert caught.value.id == "test"
    text = str(caught.value)
    assert "hidden" not in text
    assert "hidden" not in repr(link)
    return text


async def test_what_is_wrong_is_said_in_a_sentence(server: RabbitServer) -> None:
    where = server.address
    begin = f"no connection to RabbitMQ: {where}"
    assert await refusal(f"guest:hidden@{where}") == f"{begin} refuses these credentials"
    assert await refusal(f"who:hidden@{where}") == f"{begin} refuses these credentials"
    assert "vhost nowhere not found" in await refusal(f"guest:guest@{where}/nowhere")
    other = RabbitSettings(durable_exchange=True)
    async with listening(f"guest:guest@{where}", "test.said"):
        assert "inequivalent arg 'durable' for exchange 'micro'" in await refusal(where, other)
    (port,) = free_ports(1)
    assert "onnect" in await refusal(f"127.0.0.1:{port}")


async def test_one_of_several_addresses_is_enough(server: RabbitServer) -> None:
    (port,) = free_ports(1)
    address = f"127.0.0.1:{port},{server.address}"
    async with listening(address, "test.several") as (link, ear):
        await arrives(link, ear, b"first")
        assert link.where == server.address


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is no RabbitMQ server"),
        (b"AMQP\x00\x01\x00\x00", "is no RabbitMQ server"),
        (b"", "closed the connection"),
        (None, "did not answer in time"),
    ],
)
async def test_what_is_no_rabbitmq_is_said(answer: bytes | None, said: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if answer is None:
                await reader.read()
            else:
                await reader.read(8)
                writer.write(answer)
        finally:
            writer.close()

    fake = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with fake:
        port = fake.sockets[0].getsockname()[1]
        text = await refusal(f"127.0.0.1:{port}", RabbitSettings(timeout=0.5))
        assert said in text


def test_a_server_that_is_too_old_is_refused() -> None:
    able: dict[str, Any] = {"capabilities": {"publisher_confirms": True, "basic.nack": True}}
    rabbit = {"product": b"RabbitMQ", **able}
    for version in (b"3.8.0", b"4.1.3", b"10.0"):
        _check({**rabbit, "version": version}, "here")
    with pytest.raises(Unavailable, match=r"here runs RabbitMQ 3.7.28: 3.8 or newer is needed"):
        _check({**rabbit, "version": b"3.7.28"}, "here")
    with pytest.raises(Unavailable, match=r"here runs Other 1.0, which cannot confirm"):
        _check({"product": b"Other", "version": b"1.0"}, "here")


async def test_a_header_beyond_a_frame_breaks_nothing(server: RabbitServer) -> None:
    async with listening(server.address, "test.frame") as (link, ear):
        with pytest.raises(TooLarge):
            await link.publish("test.frame", b"", Properties(headers={"A": "x" * 200_000}))
        largest: dict[str, Any] = {"A": "x" * 120_000}
        assert await link.publish("test.frame", b"big", Properties(headers=largest))
        await until(lambda: b"big" in ear.bodies)
        assert link.connections == 1


async def test_what_the_server_refuses_once_is_gone_the_next_time(server: RabbitServer) -> None:
    async with listening(server.address, "test.exchange") as (link, ear):
        connection = await aiormq.connect(server.url)
        channel = await connection.channel()
        await channel.exchange_delete("micro")
        await channel.exchange_declare("micro", exchange_type="topic")
        await channel.queue_bind("test.exchange", "micro", routing_key="test.exchange")
        with pytest.raises(Unavailable, match="NOT_FOUND"):
            await link.publish("a", b"", Properties(), exchange="nowhere")
        await connection.close()
        await arrives(link, ear, b"again")
        assert link.connections == 1
