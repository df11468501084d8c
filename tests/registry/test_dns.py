"""Tests of the registry that reads DNS, against nameservers people run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio
import uvloop

from shoal.errors import BadRequest, Unavailable
from shoal.registry import Change, Node, Record, Registry
from shoal.registry._mdns_zone import encode_txt
from shoal.registry._records import split_address
from shoal.registry.consul import ConsulRegistry
from shoal.registry.dns import DnsRegistry
from shoal.testing.conformance._registry import make_record, unique
from shoal.testing.conformance.registry import RegistryConformance
from tests.servers import Background, free_ports, need
from tests.servers.consul import ConsulServer
from tests.servers.dnsmasq import DOMAIN, DnsmasqServer

METADATA = {"protocol": "mucp", "transport": "http"}
HOSTS = (
    "--host-record=one.example,10.0.0.1", "--host-record=two.example,10.0.0.2",
    "--host-record=six.example,fd00::6",
)  # fmt: skip


@pytest_asyncio.fixture
async def server() -> AsyncIterator[DnsmasqServer]:
    need(DnsmasqServer)
    async with DnsmasqServer() as server:
        yield server


@asynccontextmanager
async def opened(address: str, **settings: Any) -> AsyncIterator[DnsRegistry]:
    registry = DnsRegistry(address, **{"shortest": 0.02, **settings})
    try:
        yield registry
    finally:
        await registry.close()


class TestDns(RegistryConformance):
    """What an operator writes into a nameserver is what is published."""

    ttl = None
    service_metadata = False
    closing_takes = "nothing"
    watch_delay = None

    @pytest_asyncio.fixture(autouse=True)
    async def nameserver(self, server: DnsmasqServer) -> None:
        self.server = server
        self.records: dict[tuple[str, str], Record] = {}
        await self.tell()

    def make(self) -> Registry:
        return DnsRegistry(f"{self.server.address}/{DOMAIN}", shortest=0.05)

    async def publish(
        self, registry: Registry, record: Record, *, ttl: float | None = None
    ) -> None:
        await registry.register(record, ttl=ttl)
        for node in record.nodes:
            self.records[record.name, node.id] = replace(record, nodes=(node,))
        await self.tell()

    async def withdraw(self, registry: Registry, record: Record) -> None:
        await registry.deregister(record)
        for node in record.nodes:
            self.records.pop((record.name, node.id), None)
        await self.tell()

    async def tell(self) -> None:
        flags = dict.fromkeys(
            f"--ptr-record=_services._dns-sd._udp.{DOMAIN},_{name}._tcp.{DOMAIN}"
            for name, _ in [("a-list-is-never-empty", ""), *self.records]
        )
        for (name, id), record in self.records.items():
            (node,) = record.nodes
            host, port = split_address(node.address)
            target = f"{host.replace('.', '-').replace(':', '-')}.host.{DOMAIN}"
            service = f"_{name}._tcp.{DOMAIN}"
            texts = encode_txt(name, record.version, record.endpoints, node.metadata)
            flags[f"--ptr-record={service},{id}.{service}"] = None
            flags[f"--srv-host={id}.{service},{target},{port}"] = None
            flags[f"--host-record={target},{host}"] = None
            flags[f"--txt-record={id}.{service},{','.join(map(bytes.decode, texts))}"] = None
        await self.server.tell(*flags)


# The forms a service may have


async def test_srv_records(server: DnsmasqServer) -> None:
    await server.tell(
        *HOSTS, "--srv-host=_greeter._tcp.example,one.example,8080",
        "--srv-host=_greeter._tcp.example,two.example,8081",
        "--srv-host=_greeter._tcp.example,two.example,8082",
        "--srv-host=_greeter._tcp.example,six.example,8080",
        "--srv-host=_greeter._tcp.example,gone.example,8080",
    )  # fmt: skip
    addresses = ["10.0.0.1:8080", "10.0.0.2:8081", "10.0.0.2:8082", "[fd00::6]:8080"]
    nodes = tuple(Node(f"greeter-{one}", one, METADATA) for one in addresses)
    async with opened(f"{server.address}/example") as registry:
        assert await registry.get("greeter") == [Record("greeter", nodes=nodes)]
        (record,) = await registry.get("_greeter._tcp.example")
        assert [node.address for node in record.nodes] == addresses
    async with opened(f"{server.address}/example.", metadata={"zone": "a"}) as registry:
        (record,) = await registry.get("greeter")
        assert {node.metadata["zone"] for node in record.nodes} == {"a"}


async def test_srv_records_of_the_name_itself(server: DnsmasqServer) -> None:
    await server.tell(*HOSTS, "--srv-host=go.greeter.example,one.example,8080")
    async with opened(f"{server.address}/example") as registry:
        (record,) = await registry.get("go.greeter")
        assert [node.address for node in record.nodes] == ["10.0.0.1:8080"]


async def test_the_lowest_priority_alone_counts(server: DnsmasqServer) -> None:
    await server.tell(
        *HOSTS, "--srv-host=_greeter._tcp.example,one.example,8080,20",
        "--srv-host=_greeter._tcp.example,two.example,8080,10",
        "--srv-host=_closed._tcp.example",
    )  # fmt: skip
    async with opened(f"{server.address}/example") as registry:
        (record,) = await registry.get("greeter")
        assert [node.address for node in record.nodes] == ["10.0.0.2:8080"]
        assert await registry.get("closed") == []  # target "." (RFC 2782)


async def test_addresses_with_a_port_that_is_set(server: DnsmasqServer) -> None:
    await server.tell("--host-record=greeter.example,10.0.0.1", "--host-record=six.example,fd00::6")
    async with opened(f"{server.address}/example?port=8080") as registry:
        (record,) = await registry.get("greeter")
        assert [node.address for node in record.nodes] == ["10.0.0.1:8080"]
        (record,) = await registry.get("six")
        assert [node.address for node in record.nodes] == ["[fd00::6]:8080"]
    async with opened(f"{server.address}/example") as registry:
        assert await registry.get("greeter") == []


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("one.example:80", ["10.0.0.1:80"]),
        ("one:80", ["10.0.0.1:80"]),
        ("six.example:80", ["[fd00::6]:80"]),
        ("192.0.2.1:80", ["192.0.2.1:80"]),
        ("[fd00::1]:80", ["[fd00::1]:80"]),
        ("none.example:80", []),
        ("one.example:none", []),
    ],
)
async def test_a_name_may_be_host_and_port(
    server: DnsmasqServer, name: str, addresses: list[str]
) -> None:
    await server.tell(*HOSTS)
    async with opened(f"{server.address}/example") as registry:
        found = await registry.get(name)
        assert [node.address for record in found for node in record.nodes] == addresses


async def test_instances_with_texts(server: DnsmasqServer) -> None:
    service = "_greeter._tcp.example"
    await server.tell(
        *HOSTS, f"--ptr-record={service},a.{service}", f"--ptr-record={service},b.{service}",
        f"--ptr-record={service},gone.{service}", "--local-ttl=7",
        f"--srv-host=a.{service},one.example,8080", f"--srv-host=b.{service},two.example,8080",
        f"--txt-record=a.{service},version=1.0.0,zone=blue,transport=grpc",
    )  # fmt: skip
    async with opened(f"{server.address}/example") as registry:
        first = Node("a", "10.0.0.1:8080", {**METADATA, "zone": "blue", "transport": "grpc"})
        assert await registry.get("greeter") == [
            Record("greeter", "1.0.0", (first,)),
            Record("greeter", "latest", (Node("b", "10.0.0.2:8080", METADATA),)),
        ]


@pytest.mark.parametrize("name", ["größe", "a..b", "x" * 64, "a b", "", "\\", "_", "a/b", "*"])
async def test_any_name_can_be_asked_for(server: DnsmasqServer, name: str) -> None:
    async with opened(f"{server.address}/example") as registry:
        assert await registry.get(name) == []


async def test_a_domain_without_a_list(server: DnsmasqServer) -> None:
    async with opened(f"{server.address}/example") as registry:
        for asked in (registry.services(), anext(registry.watch())):
            with pytest.raises(Unavailable, match="does not list its services"):
                await asked


# What changes


async def step(changes: AsyncIterator[Change]) -> tuple[str, list[str]]:
    async with asyncio.timeout(20):
        change = await anext(changes)
    return change.action, [node.address for node in change.record.nodes]


async def test_a_watch_looks_when_records_are_out_of_date(server: DnsmasqServer) -> None:
    row = "--srv-host=_greeter._tcp.example"
    await server.tell(*HOSTS, f"{row},one.example,80", "--local-ttl=1")
    async with opened(f"{server.address}/example") as registry:
        changes = registry.watch("greeter")
        first = asyncio.create_task(step(changes))
        await asyncio.sleep(0)
        await registry.get("greeter")
        await server.tell(*HOSTS, f"{row},one.example,80", f"{row},two.example,80")
        assert await first == ("create", ["10.0.0.2:80"])
        await server.tell(*HOSTS, f"{row},two.example,80")
        assert await step(changes) == ("delete", ["10.0.0.1:80"])


async def test_a_watch_outlives_its_nameserver(server: DnsmasqServer) -> None:
    row = "--srv-host=_greeter._tcp.example"
    await server.tell(*HOSTS, f"{row},one.example,80")
    async with opened(f"{server.address}/example", timeout=0.5) as registry:
        changes = registry.watch("greeter")
        first = asyncio.create_task(step(changes))
        await asyncio.sleep(0)
        await registry.get("greeter")
        for stop, go_on in ((server.kill, server.start), (server.freeze, server.thaw)):
            if (stopped := stop()) is not None:
                await stopped
            async with asyncio.timeout(20):
                while registry.error is None:  # noqa: ASYNC110 - a state, no event
                    await asyncio.sleep(0.02)
            assert "error=" in repr(registry)
            with pytest.raises(Unavailable):
                await registry.get("greeter")
            if (started := go_on()) is not None:
                await started
        await server.tell(*HOSTS, f"{row},one.example,80", f"{row},two.example,80")
        assert await first == ("create", ["10.0.0.2:80"])
        assert registry.error is None


async def test_another_nameserver_is_asked(server: DnsmasqServer) -> None:
    (port,) = free_ports(1)
    await server.tell(*HOSTS, "--srv-host=_greeter._tcp.example,one.example,80")
    both = f"127.0.0.1:{port},localhost:{server.port}/example"
    async with opened(both) as registry, opened(f"127.0.0.1:{port}/example") as alone:
        assert len(await registry.get("greeter")) == 1
        with pytest.raises(Unavailable) as caught:
            await alone.get("greeter")
        assert f"dns: 127.0.0.1:{port}/example cannot tell of" in str(caught.value)
        assert str(caught.value).endswith(": Connection refused")
        with pytest.raises(Unavailable):
            await anext(alone.watch("greeter"))


async def test_something_that_speaks_no_dns() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"\x00\x05hello" * 20)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as other:
        host, port = other.sockets[0].getsockname()
        async with opened(f"{host}:{port}/example", timeout=1.0) as registry:
            with pytest.raises(Unavailable, match="dns: 127"):
                await registry.get("greeter")


async def test_datagrams_are_a_setting(server: DnsmasqServer) -> None:
    await server.tell(*HOSTS, "--srv-host=_greeter._tcp.example,one.example,80")
    async with opened(f"{server.address}/example?tcp=false") as registry:
        assert len(await registry.get("greeter")) == 1


@pytest.mark.parametrize("address", ["a:b/c", "a/b?prt=1", "a/b?port=x", "a/b?port=70000"])
def test_an_address_that_cannot_be_read(address: str) -> None:
    with pytest.raises(BadRequest):
        DnsRegistry(address)


def test_the_systems_nameservers_are_the_default() -> None:
    assert repr(DnsRegistry()) == "DnsRegistry('/', watches=0)"
    assert "[::1]:53,10.0.0.1:5353/a.b" in repr(DnsRegistry("[::1],10.0.0.1:5353/a.b/"))


def test_it_runs_on_uvloop() -> None:
    need(DnsmasqServer)

    async def use() -> None:
        async with DnsmasqServer() as server:
            await server.tell(*HOSTS, "--srv-host=_greeter._tcp.example,one.example,80")
            for tcp in ("true", "false"):
                async with opened(f"{server.address}/example?tcp={tcp}") as registry:
                    assert len(await registry.get("greeter")) == 1

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(use())


# Consul's DNS


@pytest.fixture(scope="module")
def consul() -> Iterator[ConsulServer]:
    need(ConsulServer)
    server = ConsulServer()
    with Background(server):
        yield server


async def test_consul_tells_of_all_healthy_nodes(consul: ConsulServer) -> None:
    name = unique()
    writer = ConsulRegistry(consul.address)
    addresses = [f"10.0.0.{index}:80" for index in range(1, 9)] + ["[fd00::1]:80"]
    for index, address in enumerate(addresses):
        record = make_record(name, f"{name}-{index}", address=address)
        await writer.register(record, ttl=60)
    await writer.register(make_record(name, f"{name}-x", address="10.0.1.1:80"), ttl=0.1)
    async with opened(f"{consul.dns}/service.consul") as registry:
        async with asyncio.timeout(20):
            seen: list[str] = []
            while seen != addresses:
                found = await registry.get(name)
                seen = [node.address for record in found for node in record.nodes]
        assert await registry.get(f"_{name}._tcp.service.consul") != []
        assert await registry.get(unique()) == []
    await writer.close()
