"""Tests of the registry that is Consul's agents, against a real one."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import httpx
import pytest
import uvloop

from shoal.errors import BadRequest, Unavailable
from shoal.registry import Change, Node, Record, Registry
from shoal.registry.consul import ConsulRegistry, ConsulSettings, HttpCheck, TcpCheck
from shoal.testing.conformance._registry import make_record, node_ids, unique
from shoal.testing.conformance.registry import RegistryConformance
from shoal.tls import Tls
from tests.servers import Background, Note, free_ports, need
from tests.servers.consul import ConsulServer
from tests.test_tls import Authority

QUICK = ConsulSettings(timeout=1.0, wait=1.0)
RESTARTS = int(os.environ.get("SHOAL_RESTARTS", "3"))
SECRET = "6a1c2f3e-0000-4000-8000-feedfacecafe"
ACL = f"""acl {{
  enabled = true, default_policy = "deny", tokens {{ initial_management = "{SECRET}" }}
}}"""


async def becomes(look: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Wait until something is as wanted; a registry that cannot tell yet may do so later."""
    seen: object = None
    try:
        async with asyncio.timeout(30):
            while seen != wanted:
                try:
                    seen = await look()
                except Unavailable as error:
                    seen = error
                await asyncio.sleep(0.02)
    except TimeoutError:
        assert seen == wanted


async def ask(server: ConsulServer, path: str, method: str = "GET", **body: Any) -> Any:
    """Ask an agent as an operator would."""
    async with httpx.AsyncClient(timeout=10, trust_env=False) as client:
        data = json.dumps(body) if body else None
        answer = await client.request(method, f"http://{server.address}/v1/{path}", content=data)
        answer.raise_for_status()
        return answer.json() if answer.content else None


@asynccontextmanager
async def opened(address: str, *, tls: Tls | None = None, **settings: Any) -> AsyncIterator[Any]:
    registry = ConsulRegistry(address, tls=tls, settings=ConsulSettings(**settings))
    try:
        yield registry
    finally:
        await registry.close()


@asynccontextmanager
async def quick(address: str) -> AsyncIterator[ConsulRegistry]:
    async with opened(address, timeout=1.0, wait=1.0) as registry:
        yield registry


class Watched:
    """Keeps what a watch tells."""

    def __init__(self, registry: Registry, name: str) -> None:
        self.changes: list[tuple[str, str]] = []
        self._told = asyncio.Event()
        self._task = asyncio.create_task(self._watch(registry.watch(name)))

    async def _watch(self, changes: AsyncIterator[Change]) -> None:
        async for change in changes:
            self.changes += [(change.action, node.id) for node in change.record.nodes]
            self._told.set()

    async def sees(self, *wanted: tuple[str, str]) -> None:
        """Wait for these and no others since the last time."""
        async with asyncio.timeout(30):
            while len(self.changes) < len(wanted):
                self._told.clear()
                await self._told.wait()
        assert sorted(self.changes) == sorted(wanted)
        self.changes.clear()

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


@asynccontextmanager
async def watched(registry: Registry, name: str) -> AsyncIterator[Watched]:
    watch = Watched(registry, name)
    try:
        await asyncio.sleep(0)
        await registry.get(name)  # waits until the watch has begun
        yield watch
    finally:
        await watch.end()


@pytest.fixture(scope="module")
def consul() -> Iterator[ConsulServer]:
    need(ConsulServer)
    server = ConsulServer()
    with Background(server):
        yield server


class TestConsul(RegistryConformance):
    """One agent for all tests."""

    service_metadata: ClassVar[bool] = False
    watch_delay = None

    @pytest.fixture(autouse=True)
    def agent(self, consul: ConsulServer) -> None:
        self.address = consul.address

    def make(self) -> Registry:
        return ConsulRegistry(self.address)


def test_it_runs_on_uvloop(consul: ConsulServer) -> None:
    async def use() -> None:
        async with quick(consul.address) as here, quick(consul.address) as there:
            name = unique()
            async with watched(there, name) as watch:
                await here.register(make_record(name, name), ttl=60)
                await watch.sees(("create", name))
                await here.deregister(make_record(name, name))
                await watch.sees(("delete", name))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(use())


# What is registered


async def test_a_node_is_a_service_as_go_micro_registers_it(consul: ConsulServer) -> None:
    name = unique()
    async with quick(consul.address) as registry:
        metadata = {"protocol": "mucp", "no key": "x", "long": "x" * 600}
        await registry.register(make_record(name, f"{name}-1", node=metadata), ttl=90)
        (entry,) = await ask(consul, f"health/service/{name}")
        service, check = entry["Service"], entry["Checks"][-1]
        assert (service["ID"], service["Service"]) == (f"{name}-1", name)
        assert (service["Address"], service["Port"]) == ("10.0.0.1", 8080)
        assert sorted(tag[:2] for tag in service["Tags"]) == ["t-", "t-", "t-", "v-"]
        assert service["Meta"] == {"protocol": "mucp"}  # what Consul can hold
        assert (check["CheckID"], check["Status"]) == (f"service:{name}-1", "passing")
        assert check["Type"] == "ttl"


@pytest.mark.parametrize(
    ("check", "kind"),
    [(TcpCheck(interval=1), "tcp"), (HttpCheck(url="http://{host}:1/", interval=1), "http")],
)
async def test_consul_itself_checks_nodes(
    consul: ConsulServer, check: TcpCheck | HttpCheck, kind: str
) -> None:
    name, address = unique(), consul.address if kind == "tcp" else "127.0.0.1:1"
    async with opened(consul.address, check=check) as registry:
        record = make_record(name, name, address=address)
        await registry.register(record, ttl=90)
        await registry.register(record, ttl=90)  # is known: nothing to pass, no error
        (entry,) = await ask(consul, f"health/service/{name}")
        assert entry["Checks"][-1]["Type"] == kind
        found = {"latest": [name]} if kind == "tcp" else {}  # nobody listens on port 1
        await becomes(lambda: node_ids(registry, name), found)


async def test_services_of_the_mesh(consul: ConsulServer) -> None:
    name = unique()
    async with opened(consul.address, connect=True) as mesh, quick(consul.address) as plain:
        await mesh.register(make_record(name, name), ttl=60)
        await becomes(lambda: node_ids(mesh, name), {"latest": [name]})
        other = unique()
        await plain.register(make_record(other, other), ttl=60)
        await becomes(lambda: node_ids(plain, other), {"latest": [other]})
        assert await mesh.get(other) == []


@pytest.mark.parametrize("consistency", ["stale", "default", "consistent"])
async def test_every_consistency(consul: ConsulServer, consistency: str) -> None:
    name = unique()
    async with opened(consul.address, consistency=consistency, datacenter="dc1") as registry:
        await registry.register(make_record(name, name), ttl=60)
        await becomes(lambda: node_ids(registry, name), {"latest": [name]})
        assert {name, "consul"} <= set(await registry.services())


async def test_what_others_have_registered_is_found(consul: ConsulServer) -> None:
    name = unique()
    tags = ["t", "v", "traefik.enable=true", "e-mail", "v=2.0.0", 't={"zone":"a"}', "t-zz"]
    body = {"ID": name, "Name": name, "Port": 81, "Tags": tags}
    await ask(consul, "agent/service/register", "PUT", **body)
    try:
        async with quick(consul.address) as registry:
            nodes = (Node(name, "127.0.0.1:81", {"zone": "a"}),)  # Consul's node has the address
            assert await registry.get(name) == [Record(name, "2.0.0", nodes)]
    finally:
        await ask(consul, f"agent/service/deregister/{name}", "PUT")


async def test_a_queue_address_has_no_port(consul: ConsulServer) -> None:
    name = unique()
    async with quick(consul.address) as registry:
        record = make_record(name, name, address="_INBOX.abc")
        await registry.register(record, ttl=60)
        await becomes(lambda: registry.get(name), [record])


@pytest.mark.parametrize("name", ["a/b", "größe", "100%", "a b?c#d", ""])
async def test_any_name_can_be_asked_for(consul: ConsulServer, name: str) -> None:
    async with quick(consul.address) as registry:
        assert await registry.get(name) == []


async def test_what_consul_refuses_is_a_bad_request(consul: ConsulServer) -> None:
    async with opened(consul.address, namespace="of-enterprise") as registry:
        with pytest.raises(BadRequest, match="Enterprise"):
            await registry.register(make_record(unique()), ttl=60)
        with pytest.raises(Unavailable, match="Enterprise"):
            await registry.get(unique())
        assert "nodes=[]" in repr(registry)


async def test_an_unknown_datacenter_is_unavailable(consul: ConsulServer) -> None:
    async with opened(consul.address, datacenter="mars") as registry:
        with pytest.raises(Unavailable, match="No path to datacenter"):
            await registry.get(unique())
        with pytest.raises(Unavailable):
            await anext(registry.watch(unique()))


# Agents that go and come back


async def test_what_an_operator_removed_is_registered_again(consul: ConsulServer) -> None:
    name = unique()
    async with quick(consul.address) as registry:
        await registry.register(make_record(name, name), ttl=60)
        await asyncio.sleep(0.2)
        await ask(consul, f"agent/service/deregister/{name}", "PUT")
        await becomes(lambda: node_ids(registry, name), {"latest": [name]})
        await registry.deregister(make_record(name, name))
        await asyncio.sleep(0.5)
        assert await registry.get(name) == []


async def test_it_comes_back_after_every_restart(record_property: Note) -> None:
    """The agent forgets all; nodes are there again, and the watch tells only what is different."""
    need(ConsulServer)
    name = unique()
    async with ConsulServer() as server, quick(server.address) as here:
        async with quick(server.address) as there:
            await here.register(make_record(name, "stays"), ttl=600)
            await becomes(lambda: node_ids(there, name), {"latest": ["stays"]})
            async with watched(there, name) as watch:
                for turn in range(RESTARTS):
                    tasks = len(asyncio.all_tasks())
                    await server.kill()
                    await _trouble(here, there)
                    await server.start()
                    await becomes(lambda: node_ids(there, name), {"latest": ["stays"]})
                    await here.register(make_record(name, f"n{turn}"), ttl=600)
                    await watch.sees(("create", f"n{turn}"))
                    await here.deregister(make_record(name, f"n{turn}"))
                    await watch.sees(("delete", f"n{turn}"))
                    await becomes(lambda: _error(here), None)
                    await becomes(lambda: _error(there), None)
                    assert len(asyncio.all_tasks()) <= tasks
    record_property("restarts", RESTARTS)
    record_property("changes to tell", 2 * RESTARTS)
    record_property("changes told", 2 * RESTARTS)  # or `sees` had failed


async def _error(registry: ConsulRegistry) -> Exception | None:
    return registry.error


async def _trouble(*registries: ConsulRegistry) -> None:
    async def troubled() -> bool:
        return all(isinstance(registry.error, Unavailable) for registry in registries)

    await becomes(troubled, True)
    for registry in registries:
        assert "error=" in repr(registry)


async def test_what_is_gone_after_a_restart_is_told_a_little_later() -> None:
    need(ConsulServer)
    name = unique()
    async with ConsulServer() as server, quick(server.address) as there:
        async with quick(server.address) as here, quick(server.address) as dying:
            await here.register(make_record(name, "stays"), ttl=600)
            await dying.register(make_record(name, "goes"), ttl=600)
            await becomes(lambda: node_ids(there, name), {"latest": ["goes", "stays"]})
            async with watched(there, name) as watch:
                await server.kill()
                await dying.close()
                await server.start()
                await watch.sees(("delete", "goes"))


async def test_it_comes_back_after_an_agent_hung() -> None:
    need(ConsulServer)
    name = unique()
    async with ConsulServer() as server, quick(server.address) as here:
        async with quick(server.address) as there:
            await here.register(make_record(name, name), ttl=600)
            await becomes(lambda: node_ids(there, name), {"latest": [name]})
            async with watched(there, name) as watch:
                server.freeze()
                with pytest.raises(Unavailable, match="within 1 s"):
                    await there.get(unique())
                await _trouble(here, there)
                server.thaw()
                await here.register(make_record(name, "b"), ttl=600)
                await watch.sees(("create", "b"))
                await becomes(lambda: node_ids(there, name), {"latest": ["b", name]})


async def test_another_agent_is_asked_when_one_is_gone(consul: ConsulServer) -> None:
    need(ConsulServer)
    name = unique()
    async with ConsulServer() as first:
        async with quick(f"{first.address},{consul.address}") as registry:
            await registry.register(make_record(name, name), ttl=600)
            await becomes(lambda: node_ids(registry, name), {"latest": [name]})
            async with watched(registry, name) as watch:
                assert len(await ask(first, f"health/service/{name}")) == 1
                await first.kill()
                await becomes(lambda: node_ids(registry, name), {"latest": [name]})
                assert len(await ask(consul, f"health/service/{name}")) == 1
                assert registry.error is None
                await first.start()
                await registry.deregister(make_record(name, name))
                await watch.sees(("delete", name))
    assert await ask(consul, f"health/service/{name}") == []


async def test_a_node_nobody_refreshes_is_not_registered_again() -> None:
    need(ConsulServer)
    name = unique()
    async with ConsulServer() as server, quick(server.address) as registry:
        await registry.register(make_record(name, name), ttl=0.5)
        await server.kill()
        await asyncio.sleep(0.5)
        await server.start()
        await asyncio.sleep(1)
        assert await ask(server, f"health/service/{name}") == []
        assert registry.error is None


async def test_closing_is_quick_when_the_agent_hangs() -> None:
    need(ConsulServer)
    async with ConsulServer() as server, quick(server.address) as registry:
        for id in ("a", "b", "c"):
            await registry.register(make_record(id, id), ttl=60)
        server.freeze()
        async with asyncio.timeout(20):
            await registry.close()
        server.thaw()


async def test_nobody_answers() -> None:
    (port,) = free_ports(1)
    async with quick(f"127.0.0.1:{port}") as registry:
        record = make_record(unique())
        for asked in (
            registry.get("a"), registry.services(), registry.register(record, ttl=9),
            registry.deregister(record), anext(registry.watch()), anext(registry.watch("a")),
        ):  # fmt: skip
            with pytest.raises(Unavailable, match=f"consul at 127.0.0.1:{port} cannot be reached"):
                await asked


async def test_something_else_answers() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        async with quick(f"{host}:{port}") as registry:
            for asked in (registry.get("a"), registry.services()):
                with pytest.raises(Unavailable, match="is no consul"):
                    await asked


async def test_an_answer_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n")
        with suppress(OSError):
            while True:
                writer.write(bytes(1 << 16))
                await writer.drain()
        writer.close()

    monkeypatch.setattr("shoal.registry._consul_agents.MAX_ANSWER", 1 << 20)
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        async with quick(f"{host}:{port}") as registry:
            with pytest.raises(Unavailable, match="more than 1048576 bytes"):
                await registry.get("a")


async def test_requests(caplog: pytest.LogCaptureFixture) -> None:
    """Basic authentication for a proxy before the agents, and no line in the log for each."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        with caplog.at_level(logging.INFO):
            async with opened(f"me:p%40ss@{host}:{port}", partition="p") as registry:
                assert await registry.get("a b") == []
        assert "p@ss" not in repr(registry)
        assert "me:" not in repr(registry)
    line, _, headers = heard[0].partition(b"\r\n")
    assert line == b"GET /v1/health/service/a%20b?partition=p&stale= HTTP/1.1"
    assert b"authorization: basic bwu6cebzcw==" in headers.lower()
    assert not caplog.records


# Who may


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulServer]:
    need(ConsulServer)
    file = tmp_path_factory.mktemp("acl") / "acl.hcl"
    file.write_text(ACL)
    server = ConsulServer(f"-config-file={file}")
    with Background(server):
        yield server


async def test_a_token_is_shown(guarded: ConsulServer) -> None:
    name = unique()
    async with opened(f"{guarded.address}?token={SECRET}") as registry:
        await registry.register(make_record(name, name), ttl=60)
        await becomes(lambda: node_ids(registry, name), {"latest": [name]})
        assert SECRET not in repr(registry)
        assert SECRET not in repr(ConsulSettings(token=SECRET))


@pytest.mark.parametrize("token", ["", "0b2cf7a4-wrong"])
async def test_a_token_that_is_not_good(guarded: ConsulServer, token: str) -> None:
    async with opened(guarded.address, token=token) as registry:
        with pytest.raises(Unavailable, match="refuses the token") as caught:
            await registry.register(make_record(unique()), ttl=60)
        assert not token or token not in str(caught.value)
        assert not token or token not in repr(registry)


async def test_what_a_token_may_not_see_is_not_nothing(guarded: ConsulServer) -> None:
    name = unique()
    headers = {"X-Consul-Token": SECRET}
    async with httpx.AsyncClient(headers=headers, timeout=10, trust_env=False) as client:
        made = await client.put(f"http://{guarded.address}/v1/acl/token", json={})
    async with (
        opened(guarded.address, token=SECRET) as registry,
        opened(guarded.address, token=made.json()["SecretID"]) as blind,
    ):
        await registry.register(make_record(name, name), ttl=60)
        await becomes(lambda: node_ids(registry, name), {"latest": [name]})
        for asked in (blind.get(name), blind.services(), anext(blind.watch(name))):
            with pytest.raises(Unavailable, match="does not let this token see"):
                await asked


async def test_a_token_that_changes(guarded: ConsulServer, tmp_path: Path) -> None:
    name, file = unique(), tmp_path / "token"
    with pytest.raises(Unavailable, match="cannot be read"):
        async with opened(guarded.address, token_file=str(file)) as registry:
            await registry.get(name)
    file.write_text(SECRET + "\n")
    async with opened(guarded.address, token_file=str(file), wait=1.0) as registry:
        await registry.register(make_record(name, name), ttl=60)
        await becomes(lambda: node_ids(registry, name), {"latest": [name]})
        async with watched(registry, name) as watch:
            file.write_text("revoked")
            with pytest.raises(Unavailable, match="refuses the token"):
                await registry.register(make_record(name, name), ttl=60)
            await _trouble(registry)
            file.write_text(SECRET)
            await registry.register(make_record(name, "b"), ttl=60)
            await watch.sees(("create", "b"))


@pytest.fixture
def secured(tmp_path: Path) -> Iterator[tuple[ConsulServer, Authority]]:
    need(ConsulServer)
    authority = Authority(tmp_path, "authority")
    certificate, key = authority.issue("server")
    server = ConsulServer()
    file = tmp_path / "tls.json"
    tls = {"ca_file": authority.file, "cert_file": certificate, "key_file": key}
    https = int(server.https.rpartition(":")[2])
    tls["verify_incoming"] = True  # type: ignore[assignment]  # JSON has what it needs
    file.write_text(json.dumps({"ports": {"https": https}, "tls": {"https": tls}}))
    server.flags = (f"-config-file={file}",)
    with Background(server):
        yield server, authority


async def test_certificates(secured: tuple[ConsulServer, Authority], tmp_path: Path) -> None:
    server, authority = secured
    certificate, key = authority.issue("client")
    tls = Tls(cert_file=certificate, key_file=key, ca_file=authority.file)
    name = unique()
    async with opened(server.https, tls=tls) as registry:
        await registry.register(make_record(name, name), ttl=60)
        await becomes(lambda: node_ids(registry, name), {"latest": [name]})
        authority.issue("client")  # renewed in its place
        await registry.register(make_record(name, "b"), ttl=60)
        assert registry.error is None
    for wrong in (Tls(), Tls(ca_file=authority.file)):
        async with opened(server.https, tls=wrong) as registry:
            with pytest.raises(Unavailable, match="consul at"):
                await registry.get(name)
    async with opened(server.https, tls=Tls(ca_file=str(tmp_path / "none.pem"))) as registry:
        with pytest.raises(Unavailable, match=r"none\.pem"):
            await registry.get(name)
