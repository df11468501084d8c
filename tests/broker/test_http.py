"""Tests of the HTTP broker."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shoal.broker import Broker
from shoal.broker._http_targets import BROADCAST, CURRENT
from shoal.broker.http import HttpBroker
from shoal.errors import BadRequest, TooLarge, Unavailable
from shoal.message import Message
from shoal.registry import Change, Node, Record
from shoal.registry.memory import MemoryRegistry
from shoal.testing.conformance._broker import Inbox, event, reached, settles, subscribed
from shoal.testing.conformance.broker import BrokerConformance
from shoal.tls import Tls
from tests.test_tls import Authority

HOST = "127.0.0.1"


class TestHttp(BrokerConformance):
    def setup_method(self) -> None:
        self.registry = MemoryRegistry()

    def make(self, *, unread: int = 1024) -> Broker:
        return HttpBroker(self.registry, unread=unread)


class TestHttpWithTls(BrokerConformance):
    @pytest.fixture(autouse=True)
    def _certificates(self, tmp_path: Path) -> None:
        authority = Authority(tmp_path, "authority")
        certificate, key = authority.issue("node")
        self.tls = Tls(cert_file=certificate, key_file=key, ca_file=authority.file)
        self.registry = MemoryRegistry()

    def make(self, *, unread: int = 1024) -> Broker:
        return HttpBroker(self.registry, tls=self.tls, unread=unread)


@pytest.fixture
def registry() -> MemoryRegistry:
    return MemoryRegistry()


@pytest.fixture
async def broker(registry: MemoryRegistry) -> AsyncIterator[HttpBroker]:
    async with asyncio.timeout(60):
        broker = HttpBroker(registry, timeout=1.0)
        yield broker
        await broker.disconnect()


class Recorder:
    """A subscriber by hand: keeps the requests, and answers what it is told to."""

    def __init__(self) -> None:
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        self.requests: list[bytes] = []
        self.connections = 0
        self.address = ""
        self._writers: list[asyncio.StreamWriter] = []

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Recorder]:
        server = await asyncio.start_server(self._serve, HOST, 0)
        self.address = f"{HOST}:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for writer in self._writers:
                writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                self.requests.append(head + await reader.readexactly(length))
                writer.write(self.answer)
        writer.close()


def node(id: str, address: str, topic: str, secure: str = "false") -> Node:
    return Node(id, address, {"broker": "http", "secure": secure, "topic": topic})


async def unused() -> str:
    """Return an address where nobody listens."""
    server = await asyncio.start_server(lambda *_: None, HOST, 0)
    address = f"{HOST}:{server.sockets[0].getsockname()[1]}"
    server.close()
    await server.wait_closed()
    return address


# What is registered


async def test_a_subscription_is_registered_as_go_micro_does(
    registry: MemoryRegistry, broker: HttpBroker
) -> None:
    subscription = await broker.subscribe("events", Inbox().deliver)
    (record,) = await registry.get("micro.http.broker")
    assert (record.version, record.endpoints) == ("ff.http.broadcast", ())
    (found,) = record.nodes
    assert found.id.startswith("events-")
    assert len(found.id) == len("events-") + 36
    assert found.address == broker.address
    assert found.address.startswith("127.0.0.1:")
    assert found.metadata == {"broker": "http", "secure": "false", "topic": "events"}
    await subscription.unsubscribe()
    assert await registry.get("micro.http.broker") == []


async def test_each_queue_of_a_topic_has_a_node_of_its_own(
    registry: MemoryRegistry, broker: HttpBroker
) -> None:
    for queue in ("", "", "mail", "mail", "log"):
        await subscribed(broker, "events", queue)
    records = await registry.get(CURRENT)
    assert [record.version for record in records] == ["ff.http.broadcast", "log", "mail"]
    assert len({node.id for record in records for node in record.nodes}) == 3


async def test_a_node_stays_registered_while_one_subscribes(
    registry: MemoryRegistry, broker: HttpBroker
) -> None:
    _, first = await subscribed(broker, "events")
    inbox, second = await subscribed(broker, "events")
    await first.unsubscribe()
    await reached(broker, "events", inbox)
    assert len(await registry.get(CURRENT)) == 1
    await second.unsubscribe()
    assert await registry.get(CURRENT) == []


@pytest.mark.parametrize("topic", ["a b", "größe", "a..b", "x" * 27, "a." * 20 + "b", "a\0b"])
async def test_an_id_fits_into_dns_whatever_the_topic(
    registry: MemoryRegistry, broker: HttpBroker, topic: str
) -> None:
    await subscribed(broker, topic)
    (record,) = await registry.get(CURRENT)
    assert record.nodes[0].metadata["topic"] == topic
    assert record.nodes[0].id.replace("-", "").isalnum()
    assert len(record.nodes[0].id) <= 63


async def test_a_wildcard_host_is_advertised_as_servers_advertise_it(
    registry: MemoryRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POD_IP", "127.0.0.1")
    for address, advertise, host in (
        ("127.0.0.1:0", "", "127.0.0.1"),
        ("127.0.0.1:0", "10.1.2.3", "10.1.2.3"),
        ("0.0.0.0:0", "", "127.0.0.1"),
    ):
        broker = HttpBroker(registry, address, advertise=advertise)
        await subscribed(broker, "events")
        (record,) = await registry.get(CURRENT)
        assert record.nodes[0].address == f"{host}:{broker.address.rpartition(':')[2]}"
        await broker.disconnect()


async def test_older_generations_find_a_subscription_under_their_names(
    registry: MemoryRegistry,
) -> None:
    generations = (CURRENT, "go.micro.http.broker", "topic:<topic>", "<topic>")
    async with asyncio.timeout(20), Recorder().listening() as recorder:
        broker = HttpBroker(registry, generations=generations)
        inbox, _ = await subscribed(broker, "events")
        names = [CURRENT, "go.micro.http.broker", "topic:events", "events"]
        assert await registry.services() == sorted(names)
        other = HttpBroker(registry, generations=generations)
        await other.publish("events", event(0))
        await reached(other, "events", inbox)
        assert inbox.bodies == [b"event 0"], "it is one subscriber, however often registered"
        old = Record("go.micro.http.broker", BROADCAST, (node("o", recorder.address, "events"),))
        await registry.register(old)
        while not recorder.requests:  # it is seen soon, not at once
            await other.publish("events", Message({"Kind": "x"}, b"1"))
        head, _, body = recorder.requests[0].partition(b"\r\n\r\n")
        assert head.startswith(b"POST /_sub?id=o HTTP/1.1\r\n")
        assert body == (
            b'{"Header":{"Kind":"x","Micro-Topic":"events",":topic":"events"},"Body":"MQ=="}'
        )
        await broker.disconnect()
        await other.disconnect()


class DownRegistry(MemoryRegistry):
    """A memory registry that can be out of reach."""

    down = True

    async def register(self, record: Record, *, ttl: float | None = None) -> None:
        if self.down:
            raise Unavailable("the registry is down")
        await super().register(record, ttl=ttl)

    async def get(self, name: str) -> list[Record]:
        if self.down:
            raise Unavailable("the registry is down")
        return await super().get(name)

    async def watch(self, name: str | None = None) -> AsyncIterator[Change]:
        if self.down:
            raise Unavailable("the registry is down")
        async for change in super().watch(name):
            yield change


async def test_subscribing_fails_when_the_registry_is_down() -> None:
    registry = DownRegistry()
    broker = HttpBroker(registry)
    with pytest.raises(Unavailable):
        await subscribed(broker, "events")
    assert "events" not in repr(broker)
    registry.down = False
    inbox, _ = await subscribed(broker, "events")
    await reached(broker, "events", inbox)
    await broker.disconnect()


async def test_publishing_fails_only_while_the_registry_has_told_nothing() -> None:
    registry = DownRegistry()
    broker, other = HttpBroker(registry), HttpBroker(registry)
    with pytest.raises(Unavailable):
        await broker.publish("events", event(0))
    registry.down = False
    inbox, _ = await subscribed(other, "events")
    async with asyncio.timeout(20):
        while not inbox.messages:  # the registry is not asked again at once
            with contextlib.suppress(Unavailable):
                await broker.publish("events", event(1))
            await asyncio.sleep(0.01)
    inbox.messages.clear()
    registry.down = True
    await broker.publish("events", event(0))
    await inbox.has(1)
    await broker.publish("nobody", event(0))
    await broker.disconnect()
    await other.disconnect()


async def test_a_queue_cannot_have_the_name_of_no_queue(broker: HttpBroker) -> None:
    with pytest.raises(BadRequest):
        await subscribed(broker, "events", "ff.http.broadcast")


# What is posted


async def test_a_post_is_what_go_micro_reads(registry: MemoryRegistry, broker: HttpBroker) -> None:
    async with Recorder().listening() as recorder:
        one = Record(CURRENT, BROADCAST, (node("events-a b&c", recorder.address, "events"),))
        await registry.register(one)
        header = {"Content-Type": "application/json", "Micro-Id": "98ef16c5"}
        await broker.publish("events", Message(header, b'{"msg":"hi"}\n'))
        assert recorder.requests == [
            b"POST /?id=events-a+b%26c HTTP/1.1\r\n"
            b"Host: " + recorder.address.encode() + b"\r\n"
            b"User-Agent: shoal\r\n"
            b"Content-Type: application/json\r\n"
            b"Content-Length: 121\r\n\r\n"
            b'{"Header":{"Content-Type":"application/json","Micro-Id":"98ef16c5",'
            b'"Micro-Topic":"events"},"Body":"eyJtc2ciOiJoaSJ9Cg=="}'
        ]


async def test_connections_are_reused_and_bounded(
    registry: MemoryRegistry, broker: HttpBroker
) -> None:
    async with Recorder().listening() as recorder:
        one = Record(CURRENT, BROADCAST, (node("a", recorder.address, "events"),))
        await registry.register(one)
        for number in range(50):
            await broker.publish("events", event(number))
        assert recorder.connections == 1
        await asyncio.gather(*(broker.publish("events", event(n)) for n in range(200)))
        assert len(recorder.requests) == 250
        assert recorder.connections <= 16


async def test_what_a_subscriber_asks_to_close_is_not_used_again(
    registry: MemoryRegistry, broker: HttpBroker
) -> None:
    async with Recorder().listening() as recorder:
        recorder.answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
        await registry.register(
            Record(CURRENT, BROADCAST, (node("a", recorder.address, "events"),))
        )
        for number in range(3):
            await broker.publish("events", event(number))
        assert (len(recorder.requests), recorder.connections) == (3, 3)


async def test_only_nodes_of_this_broker_and_topic_get_a_post(
    registry: MemoryRegistry, broker: HttpBroker
) -> None:
    async with Recorder().listening() as recorder:
        nodes = (
            node("a", recorder.address, "event"),
            node("b", recorder.address, "events2"),
            Node("c", recorder.address, {"broker": "grpc", "topic": "events"}),
            Node("d", recorder.address, {}),
        )
        await registry.register(Record(CURRENT, BROADCAST, nodes))
        await broker.publish("events", event(0))
        assert recorder.requests == []


async def test_a_node_that_is_gone_keeps_nothing_from_the_others(
    registry: MemoryRegistry, broker: HttpBroker, caplog: pytest.LogCaptureFixture
) -> None:
    gone = await unused()
    await registry.register(Record(CURRENT, BROADCAST, (node("gone", gone, "events"),)))
    await registry.register(Record(CURRENT, "mail", (node("gone-mail", gone, "events"),)))
    everyone, _ = await subscribed(broker, "events")
    mail, _ = await subscribed(broker, "events", "mail")
    for number in range(20):
        await broker.publish("events", event(number))
    expected = [event(number).body for number in range(20)]
    assert await everyone.has(20) == expected
    assert await mail.has(20) == expected, "of a queue another node takes it"
    assert sum(gone in record.getMessage() for record in caplog.records) <= 2


@pytest.mark.parametrize("status", [b"404 Not Found", b"503 Busy", b"500 Oops"])
async def test_a_refused_event_goes_to_another_of_the_queue(
    registry: MemoryRegistry, broker: HttpBroker, status: bytes
) -> None:
    async with Recorder().listening() as recorder:
        recorder.answer = b"HTTP/1.1 " + status + b"\r\nContent-Length: 2\r\n\r\nno"
        await registry.register(Record(CURRENT, "mail", (node("no", recorder.address, "events"),)))
        mail, _ = await subscribed(broker, "events", "mail")
        for number in range(20):
            await broker.publish("events", event(number))
        assert len(await mail.has(20)) == 20
        assert len(recorder.requests) <= 1, "it is left alone for a while"


async def test_an_event_that_may_have_arrived_goes_to_nobody_else(
    registry: MemoryRegistry, broker: HttpBroker
) -> None:
    async with Recorder().listening() as silent, Recorder().listening() as other:
        silent.answer = other.answer = b""
        nodes = node("a", silent.address, "events"), node("b", other.address, "events")
        await registry.register(Record(CURRENT, "mail", nodes))
        await broker.publish("events", event(0))
        assert len(silent.requests) + len(other.requests) == 1


async def test_a_go_process_with_one_id_for_all_gets_an_event_once(
    registry: MemoryRegistry, broker: HttpBroker
) -> None:
    async with Recorder().listening() as recorder, Recorder().listening() as other:
        both = node("events-1", recorder.address, "events")
        await registry.register(Record(CURRENT, BROADCAST, (both,)))
        broker_targets = Record(CURRENT, "mail", (both, node("events-2", other.address, "events")))
        # The memory registry knows a node by its id alone, other registries by the version too.
        real_get = registry.get

        async def get(name: str) -> list[Record]:
            return [*(await real_get(name)), broker_targets]

        registry.get = get  # type: ignore[method-assign]  # what this test needs of it
        await broker.publish("events", event(0))
        assert (len(recorder.requests), len(other.requests)) == (1, 0)


async def test_an_event_over_the_limit_is_refused(registry: MemoryRegistry) -> None:
    broker = HttpBroker(registry, max_message=1000)
    inbox, _ = await subscribed(broker, "events")
    await broker.publish("events", Message({}, b"x" * 1000))
    with pytest.raises(TooLarge):
        await broker.publish("events", Message({}, b"x" * 1001))
    generous = HttpBroker(registry)
    await generous.publish("events", Message({}, b"x" * 1001))
    await generous.publish("events", Message({}, b"x" * 500_000))
    await generous.publish("events", Message({}, b"end"))
    await inbox.until(lambda: b"x" * 1000 in inbox.bodies)
    assert b"x" * 1001 not in inbox.bodies
    await broker.disconnect()
    await generous.disconnect()


async def test_a_secure_node_is_posted_to_over_tls_that_is_verified(
    registry: MemoryRegistry, tmp_path: Path
) -> None:
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.issue("node")
    tls = Tls(cert_file=certificate, key_file=key, ca_file=authority.file)
    subscriber = HttpBroker(registry, tls=tls)
    plain, stranger = HttpBroker(registry, tls=Tls(ca_file=authority.file)), HttpBroker(registry)
    inbox, _ = await subscribed(subscriber, "events")
    (record,) = await registry.get(CURRENT)
    assert record.nodes[0].metadata["secure"] == "true"
    await plain.publish("events", event(1))
    await inbox.has(1)
    await stranger.publish("events", event(2))
    assert inbox.bodies == [event(1).body], "a certificate nobody vouches for is not trusted"
    for broker in (subscriber, plain, stranger):
        await broker.disconnect()


async def test_disconnecting_ends_a_post_under_way(
    registry: MemoryRegistry, broker: HttpBroker
) -> None:
    async with Recorder().listening() as recorder:
        recorder.answer = b""
        await registry.register(
            Record(CURRENT, BROADCAST, (node("a", recorder.address, "events"),))
        )
        publishing = asyncio.create_task(broker.publish("events", event(0)))
        await settles(lambda: len(recorder.requests) == 1)
        await broker.disconnect()
        await publishing


async def test_handlers_may_disconnect_and_subscribe_while_it_disconnects(
    registry: MemoryRegistry, broker: HttpBroker
) -> None:
    started, done = asyncio.Event(), asyncio.Event()

    async def deliver(message: Message) -> None:
        started.set()
        await asyncio.sleep(0.05)
        await broker.disconnect()
        await subscribed(broker, "later")
        await broker.publish("later", event(1))
        done.set()

    await broker.subscribe("events", deliver)
    await broker.publish("events", event(0))
    await started.wait()
    await broker.disconnect()
    await done.wait()
