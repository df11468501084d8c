"""The transport over NATS: the suite, with a real server, and what is its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import TimeoutError as NatsTimeout

from shoal.errors import ConnectionClosed, TooLarge, Unavailable
from shoal.message import Message
from shoal.testing.conformance.transport import TransportConformance
from shoal.transport import Listener, Socket, Transport
from shoal.transport.nats import NatsSettings, NatsTransport
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


class TestNatsTransport(TransportConformance):
    address: ClassVar[str] = ":0"
    ports: ClassVar[bool] = False
    notices_absence: ClassVar[bool] = False  # only the first message tells
    backpressure: ClassVar[bool] = False  # a subject takes what comes
    largest: ClassVar[int] = 700 * 1024  # the server takes a mebibyte, and base64 adds a third
    nonsense: ClassVar[Sequence[str]] = (
        "", " ", "a b", "a..b", ".a", "a.", "a.*", ">", "a\0b", "a\r\nb", "$SYS.a", "\ud800",
        "x" * 2000,
    )  # fmt: skip

    @pytest.fixture(autouse=True)
    async def _server(self, server: NatsServer) -> AsyncIterator[None]:
        self.server = server
        yield
        left = [task for task in asyncio.all_tasks() if self.foreign(task)]
        assert not left, f"closing all sockets left {left}"

    def foreign(self, task: asyncio.Task[Any]) -> bool:
        """The connection is there until the last socket is closed, of either side."""
        kind = getattr(task.get_coro(), "__qualname__", "").partition(".")[0]
        return kind in {"Link", "Outbox", "Client", "Subscription"}

    def make(self) -> Transport:
        return NatsTransport(self.server.url)


class Echo:
    """Answers every message, and keeps its sockets."""

    def __init__(self) -> None:
        self.sockets: list[Socket] = []
        self.ended = 0

    async def __call__(self, socket: Socket) -> None:
        self.sockets.append(socket)
        try:
            while True:
                await socket.send(await socket.recv())
        finally:
            self.ended += 1


@asynccontextmanager
async def echoing(
    server: NatsServer, **settings: Any
) -> AsyncIterator[tuple[NatsTransport, Listener, Echo]]:
    transport, echo = NatsTransport(server.url, **settings), Echo()
    async with asyncio.timeout(60 + 10 * RESTARTS):
        listener = await transport.listen(":0", echo)
        try:
            yield transport, listener, echo
        finally:
            await listener.close()


@asynccontextmanager
async def stranger(server: NatsServer) -> AsyncIterator[Client]:
    """Talk to the server as Go Micro does: without a word of Shoal's."""
    client = Client()
    await client.connect(server.url)
    try:
        yield client
    finally:
        await client.close()


async def becomes(look: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not look():  # noqa: ASYNC110  # any state
            await asyncio.sleep(0.01)


# The format


async def test_a_client_of_go_micro_is_served(server: NatsServer) -> None:
    async with echoing(server) as (_, listener, echo), stranger(server) as client:
        assert re.fullmatch(r"_INBOX\.[0-9a-f]{22}", listener.address)
        inbox = client.new_inbox()
        answers = await client.subscribe(inbox)
        for data in (
            b'{"Header":{"Content-Type":"application/json","Micro-ID":"1"},"Body":"e30K"}',
            b'{"Header":null,"Body":null}',
        ):
            await client.publish(listener.address, data, reply=inbox)
        answer = await answers.next_msg(5)
        assert answer.data == (
            b'{"Header":{"Content-Type":"application/json","Micro-Id":"1","Micro-ID":"1"},'
            b'"Body":"e30K"}'
        )
        assert answer.headers is None
        assert (await answers.next_msg(5)).data == b'{"Header":{},"Body":""}'
        await listener.close()
        with pytest.raises(NatsTimeout):  # it would take a word for an answer
            await answers.next_msg(0.2)
        assert len(echo.sockets) == 1


async def test_a_server_of_go_micro_is_called(server: NatsServer) -> None:
    heard: list[Msg] = []

    async def answer(message: Msg) -> None:
        heard.append(message)
        if message.data:
            await client.publish(message.reply, b'{"Header":{"Micro-ID":"7"},"Body":"eA=="}')

    transport = NatsTransport(server.url)
    async with stranger(server) as client:
        await client.subscribe("go", cb=answer)
        await client.flush()
        socket = await transport.dial("go")
        for _ in range(2):
            await socket.send(Message({"Micro-Id": "7", "Kind": "größe"}, b"{}\n"))
            assert await socket.recv() == Message({"Micro-Id": "7"}, b"x")
        assert json.loads(heard[0].data) == {
            "Header": {"Micro-Id": "7", "Kind": "größe", "Micro-ID": "7"},
            "Body": "e30K",
        }
        assert {message.reply for message in heard} == {socket.local}
        await socket.close()
        await client.flush()
        # One that has not answered may still run the request: an empty message ends its socket.
        socket = await transport.dial("silent")
        silent = await client.subscribe("silent")
        await client.flush()
        await socket.send(Message({}, b"x"))
        assert (await silent.next_msg(5)).data
        await socket.close()
        assert (await silent.next_msg(5)).data == b""
        assert len(heard) == 2


@pytest.mark.parametrize("data", [b"no JSON", b"[]", b'{"Body":1}', b'{"Header":{"a b":"c"}}', b""])
async def test_what_is_no_message_ends_its_socket_only(server: NatsServer, data: bytes) -> None:
    async with echoing(server) as (transport, listener, echo), stranger(server) as client:
        await client.publish(listener.address, data, reply=client.new_inbox())
        await client.publish(listener.address, data)  # nobody to answer
        await becomes(lambda: echo.ended)
        socket = await transport.dial(listener.address)
        await socket.send(Message({}, b"x"))
        assert (await socket.recv()).body == b"x"
        await socket.close()


# Limits


async def test_what_is_too_large_is_refused_on_both_sides(server: NatsServer) -> None:
    async with echoing(server, max_message=1000) as (transport, listener, echo):
        socket = await transport.dial(listener.address)
        with pytest.raises(TooLarge, match="too large for this NATS server"):
            await socket.send(Message({}, bytes(1_000_000)))
        await socket.send(Message({}, bytes(1000)))
        assert len((await socket.recv()).body) == 1000
        await socket.send(Message({}, bytes(1001)))
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        await socket.close()
        assert echo.ended == 1


async def test_what_nobody_receives_is_bounded(server: NatsServer) -> None:
    transport = NatsTransport(server.url, unread=100_000)
    sockets: asyncio.Queue[Socket] = asyncio.Queue()

    async def accept(socket: Socket) -> None:
        sockets.put_nowait(socket)
        await asyncio.Event().wait()

    listener = await transport.listen("slow", accept)
    client = await transport.dial("slow")
    async with asyncio.timeout(30):
        await client.send(Message({}, b"first"))
        socket = await sockets.get()
        for _ in range(20):
            await client.send(Message({}, bytes(10_000)))
        await becomes(lambda: "ended" in repr(socket))
        for _ in range(10):
            await socket.recv()
        with pytest.raises(TooLarge, match="were not received"):
            await socket.recv()
        await client.close()
        await listener.close()


# Peers that are gone


async def test_nobody_listens(server: NatsServer) -> None:
    transport = NatsTransport(server.url)
    async with asyncio.timeout(30):
        socket = await transport.dial("nobody")
        lost: list[str] = []
        socket.on_lost(lambda: lost.append("lost"))
        await socket.send(Message({}, b"x"))
        with pytest.raises(ConnectionClosed, match="nobody listens at nobody") as caught:
            await socket.recv()
        assert caught.value.unsent
        await becomes(lambda: lost == ["lost"])
        await socket.close()


async def test_a_server_that_dies_is_noticed_while_it_answers(server: NatsServer) -> None:
    async def accept(socket: Socket) -> None:
        await socket.recv()
        await asyncio.Event().wait()

    async with Gate(server.port) as gate, asyncio.timeout(30):
        there = NatsTransport(gate.address, settings=NatsSettings(patience=0.1))
        here = NatsTransport(server.url, timeout=1.0)
        listener = await there.listen("dying", accept)
        socket = await here.dial("dying")
        await socket.send(Message({}, b"x"))
        await asyncio.sleep(1.5)  # it is asked in between, and is there
        assert "open" in repr(socket)
        await gate.cut()
        with pytest.raises(ConnectionClosed, match="any more") as caught:
            await socket.recv()
        assert not caught.value.unsent  # it may have been handled
        await socket.close()
        await listener.close()


async def test_a_client_that_dies_is_noticed_while_it_waits(server: NatsServer) -> None:
    cancelled = asyncio.Event()

    async def accept(socket: Socket) -> None:
        task = asyncio.current_task()
        assert task is not None
        socket.on_lost(task.cancel)
        await socket.recv()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with Gate(server.port) as gate, asyncio.timeout(30):
        there = NatsTransport(gate.address, settings=NatsSettings(patience=0.1))
        here = NatsTransport(server.url, timeout=1.0)
        listener = await here.listen("alive", accept)
        socket = await there.dial("alive")
        await socket.send(Message({}, b"x"))
        await asyncio.sleep(1.5)
        assert not cancelled.is_set()
        await gate.cut()
        await cancelled.wait()
        await socket.close()
        await listener.close()


async def test_an_idle_client_of_go_micro_is_forgotten_and_a_busy_one_is_not(
    server: NatsServer,
) -> None:
    release = asyncio.Event()
    ended: list[bytes] = []

    async def accept(socket: Socket) -> None:
        message = await socket.recv()
        if message.body == b"slow":
            await release.wait()
            await socket.send(message)
        try:
            await socket.recv()
        finally:
            ended.append(message.body)

    transport = NatsTransport(server.url, timeout=0.4)
    async with asyncio.timeout(30), stranger(server) as client:
        listener = await transport.listen("idle", accept)
        answers = await client.subscribe("answers")
        await client.publish("idle", b'{"Body":"c2xvdw=="}', reply="answers")
        await client.publish("idle", b'{"Body":"eA=="}', reply=client.new_inbox())
        await becomes(lambda: ended == [b"x"])
        await asyncio.sleep(0.5)
        release.set()
        assert json.loads((await answers.next_msg(5)).data)["Body"] == "c2xvdw=="
        await becomes(lambda: len(ended) == 2)
        await listener.close()


async def test_idle_sockets_of_shoal_stay(server: NatsServer) -> None:
    async with echoing(server, timeout=0.4) as (transport, listener, echo):
        socket = await transport.dial(listener.address)
        for _ in range(2):
            await socket.send(Message({}, b"x"))
            assert (await socket.recv()).body == b"x"
            await asyncio.sleep(1)
        assert len(echo.sockets) == 1
        await socket.close()
        await becomes(lambda: echo.ended)


# Coming back


async def test_listeners_are_there_again_and_sockets_are_not_after_restarts(
    record_property: Note,
) -> None:
    need(NatsServer)
    async with NatsServer() as server, echoing(server) as (_, listener, echo):
        transport = NatsTransport(server.url)
        for _ in range(RESTARTS):
            socket = await transport.dial(listener.address)
            await socket.send(Message({}, b"x"))
            assert (await socket.recv()).body == b"x"
            await server.stop()
            await becomes(lambda: isinstance(transport.error, Unavailable))
            await server.start()
            with pytest.raises(ConnectionClosed):
                await socket.recv()
            with pytest.raises(ConnectionClosed) as caught:
                await socket.send(Message({}, b"x"))
            assert caught.value.unsent
            await becomes(lambda: len(echo.sockets) == echo.ended)
            while True:  # until the listener is there again
                again = await transport.dial(listener.address)
                try:
                    await again.send(Message({}, b"again"))
                    assert (await again.recv()).body == b"again"
                    break
                except ConnectionClosed:
                    await asyncio.sleep(0.02)
                finally:
                    await again.close()
            assert transport.error is None
            await socket.close()
            await becomes(lambda: len(echo.sockets) == echo.ended)
        record_property("restarts", RESTARTS)


async def test_no_server_is_one_sentence() -> None:
    transport = NatsTransport("me:secret@127.0.0.1:1")
    with pytest.raises(Unavailable, match=r"cannot connect to a: no connection to NATS") as caught:
        await transport.dial("a")
    assert "secret" not in f"{caught.value!r} {transport!r}"
    with pytest.raises(Unavailable, match=r"cannot listen at a: no connection to NATS"):
        await transport.listen("a", Echo())
