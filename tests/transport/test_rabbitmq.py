"""The transport over RabbitMQ: the suite, with a real server, and what is its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

import aiormq
import pytest

import shoal
from shoal._rabbitmq import Properties
from shoal.errors import ConnectionClosed, TooLarge, Unavailable
from shoal.message import Message
from shoal.registry.memory import MemoryRegistry
from shoal.testing.conformance._broker import settles
from shoal.testing.conformance._transport import Accepting
from shoal.testing.conformance.transport import TransportConformance
from shoal.transport import Socket, Transport
from shoal.transport.rabbitmq import RabbitSettings, RabbitTransport
from tests.servers import Background, Note, need
from tests.servers._gate import Gate
from tests.servers.rabbitmq import RabbitServer


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


class TestRabbitTransport(TransportConformance):
    address: ClassVar[str] = ":0"
    ports: ClassVar[bool] = False
    backpressure: ClassVar[bool] = False  # a queue takes what comes
    nonsense: ClassVar[Sequence[str]] = (
        "", " ", "a.*", "#", "a\0b", "amq.a", "\ud800", "x" * 256,
    )  # fmt: skip

    @pytest.fixture(autouse=True)
    async def _server(self, server: RabbitServer) -> AsyncIterator[None]:
        self.server = server
        before = asyncio.all_tasks()
        yield
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        assert not left, f"closing all sockets left {left}"

    def foreign(self, task: asyncio.Task[Any]) -> bool:
        """The connection is there until the last socket is closed, of either side."""
        return True

    def make(self) -> Transport:
        return RabbitTransport(self.server.url)


DEADLINE = 20.0
RESTARTS = int(os.environ.get("SHOAL_RESTARTS", "1"))  # each takes seconds, on both loops
QUICK = RabbitSettings(heartbeat=1, timeout=3.0)


@contextlib.asynccontextmanager
async def served(server: RabbitServer, **options: Any) -> AsyncIterator[tuple[Any, Any]]:
    """Give a listener, and the queue of the sockets it accepts."""
    sockets: asyncio.Queue[Socket] = asyncio.Queue()

    async def accept(socket: Socket) -> None:
        sockets.put_nowait(socket)
        await asyncio.Event().wait()

    async with asyncio.timeout((3 + RESTARTS) * DEADLINE):
        transport = RabbitTransport(server.url, settings=QUICK, **options)
        listener = await transport.listen(":0", accept)
        try:
            yield listener, sockets
        finally:
            await listener.close()


@contextlib.asynccontextmanager
async def raw(server: RabbitServer) -> AsyncIterator[Any]:
    """Give a channel that nothing of ours stands in front of."""
    connection = await aiormq.connect(server.url)
    try:
        channel = await connection.channel()
        await channel.exchange_declare("micro", exchange_type="topic")
        yield channel
    finally:
        await connection.close()


async def test_what_a_client_of_go_micro_sends_is_answered(server: RabbitServer) -> None:
    """The frames of go-plugins' transport/rabbitmq, as its client writes and reads them."""
    answers: asyncio.Queue[Any] = asyncio.Queue()
    async with served(server) as (listener, sockets), raw(server) as channel:
        await channel.basic_consume("amq.rabbitmq.reply-to", answers.put, no_ack=True)
        for id in ("one", "other"):
            await channel.basic_publish(
                b"body",
                exchange="micro",
                routing_key=listener.address,
                properties=Properties(
                    correlation_id=id,
                    reply_to="amq.rabbitmq.reply-to",
                    timestamp=datetime(2026, 1, 1, tzinfo=UTC),
                    headers={"Micro-Id": "7", "Micro-Service": "greeter", "Timeout": 5},
                ),
            )
        for id in ("one", "other"):
            socket = await sockets.get()
            got = await socket.recv()
            assert got.body == b"body"
            assert got.header == {"Micro-Id": "7", "Micro-Service": "greeter", "Timeout": "5"}
            await socket.send(Message({"Micro-Id": "7"}, id.encode()))
            answer = await answers.get()
            assert answer.header.properties.correlation_id == id
            assert answer.body == id.encode()
            assert answer.exchange == ""
            assert answer.header.properties.headers == {"Micro-Id": "7", "Micro-ID": "7"}
            await socket.close()
        assert answers.empty()  # Go Micro would take it for an answer


async def test_a_server_of_go_micro_is_asked_as_its_own_clients_do(server: RabbitServer) -> None:
    asked: asyncio.Queue[Any] = asyncio.Queue()
    address = str(uuid.uuid4())
    async with asyncio.timeout(DEADLINE), raw(server) as channel:
        await channel.queue_declare(address, auto_delete=True)
        await channel.basic_consume(address, asked.put, no_ack=True)
        await channel.queue_bind(address, "micro", routing_key=address)
        client = await RabbitTransport(server.url).dial(address)
        await client.send(Message({"Micro-Id": "7"}, b"body"))
        request = await asked.get()
        properties = request.header.properties
        assert (request.exchange, request.routing_key) == ("micro", address)
        assert request.body == b"body"
        assert properties.headers == {"Micro-Id": "7", "Micro-ID": "7"}
        assert properties.reply_to.startswith("amq.rabbitmq.reply-to.")
        await channel.basic_publish(
            b"answer",
            routing_key=properties.reply_to,
            properties=Properties(
                correlation_id=properties.correlation_id, headers={"Micro-Id": "7"}
            ),
        )
        answer = await client.recv()
        assert (answer.header, answer.body) == ({"Micro-Id": "7"}, b"answer")
        await client.close()


async def test_peers_that_died_without_a_word_are_noticed(server: RabbitServer) -> None:
    async with Gate(server.port) as gate:
        behind = f"guest:guest@{gate.address}"
        async with served(server, timeout=1.0) as (listener, sockets):
            client = await RabbitTransport(behind, settings=QUICK).dial(listener.address)
            await client.send(Message({}, b"hello"))
            socket = await sockets.get()
            assert (await socket.recv()).body == b"hello"
            await gate.cut()
            for side in (client, socket):
                with pytest.raises(ConnectionClosed):
                    await side.recv()
            await client.close()
        await gate.open()
        transport = RabbitTransport(behind, settings=QUICK)
        other = await transport.listen("test.dies", Accepting())
        near = RabbitTransport(server.url, timeout=1.0, settings=QUICK)
        async with asyncio.timeout(DEADLINE):
            client = await near.dial("test.dies")
            await gate.cut()
            with pytest.raises(ConnectionClosed, match="has gone"):
                await client.recv()
            with pytest.raises(ConnectionClosed) as caught:
                await client.send(Message({}, b"late"))
            assert caught.value.unsent
            await client.close()
            await other.close()


async def test_listeners_are_there_again_after_restarts(
    server: RabbitServer, background: Background, record_property: Note
) -> None:
    async with served(server) as (listener, sockets):
        transport = RabbitTransport(server.url, settings=QUICK)
        client = await transport.dial(listener.address)
        for turn in range(RESTARTS):
            await asyncio.to_thread(background.run, server.stop)
            await settles(lambda: isinstance(transport.error, Unavailable))
            await asyncio.to_thread(background.run, server.start)
            with pytest.raises(ConnectionClosed):
                await client.recv()
            await client.close()
            while True:
                try:
                    client = await transport.dial(listener.address)
                    break
                except Unavailable:
                    await asyncio.sleep(0.05)
            await client.send(Message({}, b"again %d" % turn))
            socket = await sockets.get()
            assert (await socket.recv()).body == b"again %d" % turn
            assert transport.error is None
        await client.close()
        record_property("restarts", RESTARTS)


async def test_what_nobody_receives_is_bounded(server: RabbitServer) -> None:
    async with served(server, unread=1000, max_message=600) as (listener, sockets):
        transport = RabbitTransport(server.url)
        flooding, big = [await transport.dial(listener.address) for _ in range(2)]
        for _ in range(2):
            await flooding.send(Message({}, bytes(600)))
        await big.send(Message({}, bytes(601)))
        for bodies in (1, 0):
            socket = await sockets.get()
            for _ in range(bodies):
                assert len((await socket.recv()).body) == 600
            with pytest.raises(TooLarge):
                await socket.recv()
        await flooding.close()
        await big.close()


async def test_mdns_says_that_it_cannot_register_queues(server: RabbitServer) -> None:
    service = shoal.Service(
        "test.mdns", registry="mdns", broker="memory", transport=f"rabbitmq://{server.url}"
    )
    with pytest.raises(shoal.BadRequest, match="mdns registers hosts and ports"):
        async with service:
            pass


async def test_a_service_is_called_over_it(server: RabbitServer) -> None:
    registry = MemoryRegistry()
    address = f"rabbitmq://{server.url.removeprefix('amqp://')}/"
    options: dict[str, Any] = {"registry": registry, "broker": address, "transport": address}
    heard: asyncio.Queue[str] = asyncio.Queue()

    async def on_event(event: str) -> None:
        heard.put_nowait(event)

    class Greeter:
        async def hello(self, name: str) -> str:
            return f"Hello {name}"

    service = shoal.Service("test.greeter", **options)
    service.handle(Greeter())
    service.subscribe("test.greeted", on_event, queue="test.greeter.queue")
    async with asyncio.timeout(DEADLINE), service, shoal.connect(**options) as client:
        request = shoal.Request("test.greeter", "Greeter.Hello", "John", str)
        assert await client.call(request) == "Hello John"

        async def patiently() -> str:
            while True:
                with contextlib.suppress(shoal.TooManyRequests):  # this machine may be busy
                    return await client.call(request)
                await asyncio.sleep(0.1)

        replies = await asyncio.gather(*(patiently() for _ in range(50)))
        assert set(replies) == {"Hello John"}
        await client.publish("test.greeted", "John")
        assert await heard.get() == "John"
