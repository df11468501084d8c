"""Tests of what goes over RabbitMQ with TLS: connection, broker and transport."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

import shoal
from shoal._rabbitmq import Link, RabbitSettings
from shoal.broker.rabbitmq import RabbitBroker
from shoal.errors import Unavailable
from shoal.registry.memory import MemoryRegistry
from shoal.testing.conformance._broker import event, subscribed, unique
from shoal.tls import Tls, TlsError
from shoal.transport.rabbitmq import RabbitTransport
from tests.servers import Background, need
from tests.servers.rabbitmq import RabbitServer
from tests.test_tls import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"), "authority")


@pytest.fixture(scope="module")
def server(authority: Authority) -> Iterator[RabbitServer]:
    """A server that asks whoever comes with TLS for a certificate."""
    need(RabbitServer)
    certificate, key = authority.issue("server")
    server = RabbitServer()
    server.config = f"""
        listeners.ssl.1 = {server.secure}
        ssl_options.cacertfile = {authority.file}
        ssl_options.certfile = {certificate}
        ssl_options.keyfile = {key}
        ssl_options.verify = verify_peer
        ssl_options.fail_if_no_peer_cert = true
    """
    with Background(server):
        yield server


@pytest.fixture
def tls(authority: Authority) -> Tls:
    certificate, key = authority.issue("client")
    return Tls(ca_file=authority.file, cert_file=certificate, key_file=key)


async def refusal(address: str, tls: Tls | None = None) -> str:
    """Return what is said when there is no connection."""
    link = Link(address, RabbitSettings(timeout=3.0), tls, "test")
    async with asyncio.timeout(20):
        with pytest.raises(Unavailable) as caught:
            await link.open()
        await link.close()
    return str(caught.value)


@pytest.mark.parametrize("scheme", ["", "amqps://"])
async def test_events_move_over_tls(server: RabbitServer, tls: Tls, scheme: str) -> None:
    topic = unique()
    broker = RabbitBroker(f"{scheme}guest:guest@{server.secure}", tls=tls)
    async with asyncio.timeout(60):
        inbox, _ = await subscribed(broker, topic)
        await broker.publish(topic, event(1))
        await inbox.has(1)
        assert broker.address == server.secure
        await broker.disconnect()


async def test_calls_are_answered_over_tls(server: RabbitServer, tls: Tls) -> None:
    class Greeter:
        async def hello(self, name: str) -> str:
            return f"Hello {name}"

    registry, address = MemoryRegistry(), f"guest:guest@{server.secure}"
    ours, theirs = (RabbitTransport(address, tls=tls) for _ in range(2))
    service = shoal.Service("greeter", registry=registry, transport=ours, broker="memory")
    service.handle(Greeter())
    async with asyncio.timeout(60):
        async with service, shoal.connect(registry=registry, transport=theirs) as client:
            request = shoal.Request("greeter", "Greeter.Hello", "John", str)
            assert await client.call(request) == "Hello John"
            assert await server.control("list_connections", "ssl") == "ssl\ntrue\ntrue\n"


async def test_what_is_wrong_is_said(server: RabbitServer, tls: Tls, authority: Authority) -> None:
    where = server.secure
    begin = f"no connection to RabbitMQ: {where}"
    assert "is not trusted" in await refusal(where, Tls())
    assert "is not trusted" in await refusal(f"amqps://{where}")
    nameless = Tls(ca_file=authority.file)
    # With TLS 1.3 a server says so after the handshake, and at once closes: what it said can be
    # taken back by the reset that answers the client's first bytes.
    said = [f"{begin} wants a certificate: set tls_cert_file", f"{begin} closed the connection"]
    assert await refusal(where, nameless) in said
    assert await refusal(where) == f"{begin} wants TLS: write amqps://{where}"
    assert "offers no TLS" in await refusal(f"amqps://{server.address}", tls)


async def test_a_file_that_is_not_there_is_named(server: RabbitServer) -> None:
    broker = RabbitBroker(server.secure, tls=Tls(ca_file="none.pem"))
    with pytest.raises(TlsError, match=r"none\.pem"):
        await broker.connect()
    await broker.disconnect()
