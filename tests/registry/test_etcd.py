"""Tests of the registry etcd against real servers: what is written, and who may."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from shoal.errors import BadRequest, Unavailable
from shoal.registry import Endpoint, Node, Record, Registry, Value
from shoal.registry.etcd import EtcdRegistry, EtcdSettings
from shoal.testing.conformance.registry import RegistryConformance
from shoal.tls import Tls
from tests.registry.etcd_parts import becomes, ids, make_record, watching
from tests.servers import need
from tests.servers.etcd import EtcdServer
from tests.test_tls import Authority

# What Go Micro v6 puts below the key (registry/etcd).
GO_KEY = "/micro/registry/helloworld/helloworld-1"
GO_VALUE = (
    b'{"name":"helloworld","version":"1.0.0","metadata":null,"endpoints":[{"request":{"name":"Req",'
    b'"type":"Req","values":[{"name":"name","type":"string","values":null}]},"response":{"name":'
    b'"Rsp","type":"Rsp","values":[{"name":"msg","type":"string","values":null}]},"metadata":{},'
    b'"name":"Greeter.Hello"}],"nodes":[{"metadata":{"protocol":"mucp","transport":"http"},"id":'
    b'"helloworld-1","address":"10.0.0.5:8080"}]}'
)
GO_RECORD = Record(
    "helloworld",
    "1.0.0",
    (Node("helloworld-1", "10.0.0.5:8080", {"protocol": "mucp", "transport": "http"}),),
    (
        Endpoint(
            "Greeter.Hello",
            Value("Req", "Req", (Value("name", "string"),)),
            Value("Rsp", "Rsp", (Value("msg", "string"),)),
        ),
    ),
)


Connect = Callable[..., EtcdRegistry]


@pytest.fixture
async def connect(etcd: EtcdServer) -> AsyncIterator[Connect]:
    """Make registries that are closed after the test, with nothing left in etcd."""
    made: list[EtcdRegistry] = []

    def connect(address: str, **settings: Any) -> EtcdRegistry:
        made.append(EtcdRegistry(address, **settings))
        return made[-1]

    yield connect
    await asyncio.gather(*(one.close() for one in made))
    await etcd.clear()


class TestEtcd(RegistryConformance):
    """What is not refreshed vanishes at once; a process that died, within whole seconds."""

    watch_delay = None

    @pytest.fixture(autouse=True)
    def _server(self, etcd: EtcdServer) -> None:
        self.address = etcd.address

    def make(self) -> Registry:
        return EtcdRegistry(self.address)


# What is written, and read.


async def test_a_node_is_written_as_go_micro_does(connect: Connect, etcd: EtcdServer) -> None:
    registry = connect(etcd.address)
    await registry.register(GO_RECORD, ttl=90)
    key = (await etcd.keys(GO_KEY))[GO_KEY]
    value = GO_VALUE.replace(b'"metadata":null', b'"metadata":{}')  # which Go reads alike
    assert key["value"] == value
    lease = await etcd.ask("lease/timetolive", {"ID": key["lease"]})
    assert lease["grantedTTL"] == "90"
    await registry.deregister(GO_RECORD)
    assert await etcd.keys(GO_KEY) == {}


async def test_what_go_micro_writes_is_read(connect: Connect, etcd: EtcdServer) -> None:
    await etcd.put(GO_KEY, GO_VALUE)
    registry = connect(etcd.address)
    assert await registry.get("helloworld") == [GO_RECORD]
    assert "helloworld" in await registry.services()
    await registry.deregister(GO_RECORD)  # whoever wrote it
    assert await registry.get("helloworld") == []


async def test_a_key_has_one_node_and_no_slash_of_a_name(
    connect: Connect, etcd: EtcdServer
) -> None:
    registry = connect(etcd.address)
    nodes = (Node("x/1", "10.0.0.1:80"), Node("x/2", "10.0.0.2:80"))
    await registry.register(Record("team/mail", nodes=nodes), ttl=2.1)
    await registry.register(Record("team-mail", nodes=(Node("y", "10.0.0.3:80"),)))
    keys = await etcd.keys("/micro/registry/team-mail/")
    assert [key.rpartition("/")[2] for key in keys] == ["x-1", "x-2", "y"]
    assert [len(msgspec.json.decode(key["value"])["nodes"]) for key in keys.values()] == [1, 1, 1]
    assert (await registry.get("team/mail"))[0].nodes == nodes
    assert await ids(registry, "team-mail") == ["y"]
    granted = [key["lease"] for key in keys.values() if "lease" in key]
    assert len(granted) == 2  # without a time to live there is no lease
    lease = await etcd.ask("lease/timetolive", {"ID": granted[0]})
    assert lease["grantedTTL"] == "3"


async def test_a_refreshed_node_is_not_written_again(connect: Connect, etcd: EtcdServer) -> None:
    registry = connect(etcd.address)
    key = "/micro/registry/greeter/a"
    async with watching(registry) as watch:
        for _ in range(3):
            await registry.register(make_record(), ttl=90)
        written = (await etcd.keys(key))[key]
        assert written["version"] == "1"
        changed = make_record(address="10.0.0.9:80")
        await registry.register(changed, ttl=90)
        rewritten = (await etcd.keys(key))[key]
        assert (rewritten["version"], rewritten["lease"]) == ("2", written["lease"])
        await registry.register(changed, ttl=60)
        assert (await etcd.keys(key))[key]["lease"] != written["lease"]
        await registry.deregister(changed)
        await watch.becomes(set())
        assert [change.action for change in watch.changes] == ["create", "update", "delete"]


async def test_older_layouts_are_read_and_written(connect: Connect, etcd: EtcdServer) -> None:
    await etcd.put("/micro-registry/greeter/old", GO_VALUE.replace(b"helloworld", b"greeter"))
    legacy = connect(f"{etcd.address}/micro-registry")
    both = connect(f"{etcd.address}?also=/micro-registry/")
    assert await ids(legacy) == ["greeter-1"]
    async with watching(both) as watch:
        await both.register(make_record(id="new"))
        await legacy.register(make_record(id="legacy"))
        await watch.becomes({"new", "legacy"})
        assert await ids(both) == ["greeter-1", "legacy", "new"]
        assert set(await both.services()) == {"greeter"}
        await etcd.delete("/micro-registry/greeter/old")
        await legacy.close()
        await becomes(lambda: ids(both), ["new"])


async def test_what_is_no_record_is_passed_over(
    connect: Connect, etcd: EtcdServer, caplog: pytest.LogCaptureFixture
) -> None:
    registry = connect(etcd.address)
    for index, value in enumerate((b"", b"{", b"[]", b"{}", b'{"name":"greeter"}', b"\xff", b"1")):
        await etcd.put(f"/micro/registry/greeter/{index}", value)
    async with watching(registry) as watch:
        await registry.register(make_record(), ttl=60)
        await etcd.put("/micro/registry/greeter/8", b"no record")
        await etcd.put("/micro/registry/greeter/a", b"no record any more")
        await registry.register(make_record(id="b"), ttl=60)
        await watch.becomes({"b"})
        assert await ids(registry) == ["b"]
        assert await registry.services() == ["greeter"]
    assert len(caplog.records) == 1
    assert "/micro/registry/greeter/" in caplog.text


async def test_a_record_may_be_too_large(connect: Connect, etcd: EtcdServer) -> None:
    registry = connect(etcd.address)
    record = Record("greeter", nodes=(Node("a", "10.0.0.1:80", {"much": "x" * (2 << 20)}),))
    with pytest.raises(BadRequest, match="/micro/registry/greeter/a is too large"):
        await registry.register(record)


async def test_many_nodes_are_read_in_pages(connect: Connect, etcd: EtcdServer) -> None:
    count = 1200
    for start in range(0, count, 100):
        nodes = [Node(f"n{index:04}", "10.0.0.1:80") for index in range(start, start + 100)]
        await asyncio.gather(
            *(
                etcd.put(
                    f"/micro/registry/wide/{node.id}",
                    f'{{"name":"wide","nodes":[{{"id":"{node.id}","address":"{node.address}"}}]}}',
                )
                for node in nodes
            )
        )
    registry = connect(etcd.address)
    assert len(await ids(registry, "wide")) == count


# How long nodes stay.


async def test_a_node_outlives_its_lease_while_it_is_refreshed(
    connect: Connect, etcd: EtcdServer
) -> None:
    registry, other = connect(etcd.address), connect(etcd.address)
    async with watching(other) as watch:
        for _ in range(8):
            await registry.register(make_record(), ttl=2)
            await asyncio.sleep(0.6)
        assert [change.action for change in watch.changes] == ["create"]


async def test_a_node_of_a_dead_process_vanishes(connect: Connect, etcd: EtcdServer) -> None:
    program = (
        "import asyncio\n"
        "from shoal.registry import Node, Record\n"
        "from shoal.registry.etcd import EtcdRegistry\n"
        "async def main():\n"
        f"    registry = EtcdRegistry({etcd.address!r})\n"
        "    await registry.register(Record('greeter', nodes=(Node('dies', 'h:1'),)), ttl=2)\n"
        "    print('ready', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, stdout=asyncio.subprocess.PIPE, env=environment
    )
    registry = connect(etcd.address)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(30):
            assert await process.stdout.readline() == b"ready\n"
        assert await ids(registry) == ["dies"]
    finally:
        process.send_signal(signal.SIGKILL)
        await process.wait()
    await becomes(lambda: ids(registry), [])


async def test_a_lost_lease_is_replaced(
    connect: Connect, etcd: EtcdServer, caplog: pytest.LogCaptureFixture
) -> None:
    registry = connect(etcd.address)
    key = "/micro/registry/greeter/a"
    await registry.register(make_record(), ttl=6)
    lost = (await etcd.keys(key))[key]["lease"]
    await etcd.ask("lease/revoke", {"ID": lost})
    assert await ids(registry) == []
    await becomes(lambda: ids(registry), ["a"])  # without being registered again
    assert "lost and is registered again" in caplog.text
    await etcd.ask("lease/revoke", {"ID": (await etcd.keys(key))[key]["lease"]})
    await registry.register(make_record(), ttl=6)
    assert await ids(registry) == ["a"]


async def test_a_node_that_somebody_took_away_comes_back_with_the_next_refresh(
    connect: Connect,
    etcd: EtcdServer,
) -> None:
    registry, other = connect(etcd.address), connect(etcd.address)
    for ttl in (60, None):
        await registry.register(make_record(), ttl=ttl)
        await other.deregister(make_record())
        await other.register(make_record(address="10.0.0.2:80"), ttl=60)
        await registry.register(make_record(), ttl=ttl)
        (record,) = await other.get("greeter")
        assert record == make_record()


# Who may.


@pytest.fixture
async def guarded() -> object:
    need(EtcdServer)
    async with EtcdServer("--auth-token-ttl", "1") as server:
        for name in ("root", "micro"):
            await server.ask("auth/user/add", {"name": name, "password": f"{name}-secret"})
            await server.ask("auth/role/add", {"name": name})
            await server.ask("auth/user/grant", {"user": name, "role": name})
        permission = {"permType": 2, "key": "L21pY3Jv", "range_end": "L21pY3Jw"}  # /micro
        await server.ask("auth/role/grant", {"name": "micro", "perm": permission})
        await server.ask("auth/enable", {})
        yield server


async def test_a_user_logs_in_again_when_the_token_has_expired(
    connect: Connect, guarded: EtcdServer
) -> None:
    registry = connect(f"micro:micro-secret@{guarded.address}")
    async with watching(registry) as watch:
        for id in "abc":
            await registry.register(make_record(id=id), ttl=60)
            await asyncio.sleep(2)  # etcd keeps a token for 1
        await watch.becomes({"a", "b", "c"})
        assert await ids(registry) == ["a", "b", "c"]
        await guarded.restart()
        await becomes(lambda: ids(registry), ["a", "b", "c"])
        await registry.register(make_record(id="d"), ttl=60)
        await watch.becomes({"a", "b", "c", "d"})


@pytest.mark.parametrize(
    ("login", "problem"),
    [
        ("", "wants a user and a password"),
        ("micro:wrong@", "invalid user ID or password"),
        ("nobody:micro-secret@", "invalid user ID or password"),
    ],
)
async def test_who_may_not_is_told(
    connect: Connect, guarded: EtcdServer, login: str, problem: str
) -> None:
    registry = connect(f"{login}{guarded.address}")
    watch = registry.watch()
    for asked in (
        registry.get("greeter"),
        registry.services(),
        registry.register(make_record(), ttl=60),
        anext(watch),
    ):
        with pytest.raises(Unavailable, match=problem) as caught:
            await asked
        assert "secret" not in str(caught.value)
        assert "wrong" not in str(caught.value)


async def test_who_may_not_read_is_told(connect: Connect, guarded: EtcdServer) -> None:
    registry = connect(f"micro:micro-secret@{guarded.address}/elsewhere")
    for asked in (registry.get("greeter"), anext(registry.watch())):
        with pytest.raises(Unavailable, match="permission denied"):
            await asked
    assert "secret" not in repr(registry)


async def test_a_password_may_change(connect: Connect, guarded: EtcdServer, tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("micro-secret\n")
    settings = EtcdSettings(user="micro", password_file=str(path))
    registry = connect(guarded.address, settings=settings)
    async with watching(registry) as watch:
        await registry.register(make_record(id="a"), ttl=60)
        login = {"name": "root", "password": "root-secret"}
        root = (await guarded.ask("auth/authenticate", login))["token"]
        changed = {"name": "micro", "password": "another-secret"}
        await guarded.ask("auth/user/changepw", changed, root)
        await guarded.restart()  # nothing that was given before is good any more
        path.write_text("another-secret\n")
        await becomes(lambda: ids(registry), ["a"])
        await registry.register(make_record(id="b"), ttl=60)
        await watch.becomes({"a", "b"})
        path.unlink()
        await guarded.restart()
        with pytest.raises(Unavailable, match=r"the password in '.*' cannot be read"):
            await registry.get("greeter")
        path.write_text("another-secret\n")
        assert await ids(registry) == ["a", "b"]


async def test_a_user_is_no_hindrance_where_nobody_is_asked(
    connect: Connect, etcd: EtcdServer
) -> None:
    registry = connect(f"micro:secret@{etcd.address}")
    await registry.register(make_record())
    assert await ids(registry) == ["a"]


async def test_connections_are_secured(connect: Connect, tmp_path: Path) -> None:
    need(EtcdServer)
    authority = Authority(tmp_path, "authority")
    cert, key = authority.issue("server")
    mine, mine_key = authority.issue("client")
    tls = Tls(cert_file=mine, key_file=mine_key, ca_file=authority.file)
    flags = ["--cert-file", cert, "--key-file", key, "--client-cert-auth"]
    flags += ["--trusted-ca-file", authority.file]
    async with EtcdServer(*flags, tls=tls.client_context()) as server:
        registry = connect(server.address, tls=tls)
        async with watching(registry) as watch:
            await registry.register(make_record(), ttl=60)
            await watch.becomes({"a"})
        stranger = connect(server.address, tls=Tls(ca_file=authority.file))
        with pytest.raises(Unavailable, match="it may want a certificate"):
            await stranger.get("greeter")
        other = Authority(tmp_path, "other")
        doubting = Tls(cert_file=mine, key_file=mine_key, ca_file=other.file)
        doubtful = connect(server.address, tls=doubting)
        with pytest.raises(Unavailable, match="its certificate is not trusted"):
            await doubtful.get("greeter")
        shutil.copy(authority.file, other.file)  # as when certificates are renewed
        assert await ids(doubtful) == ["a"]
        plain = connect(server.address)
        with pytest.raises(Unavailable, match="cannot be asked"):
            await plain.get("greeter")
        https = connect(f"https://{server.address}")
        with pytest.raises(Unavailable, match="its certificate is not trusted"):
            await https.get("greeter")
        nowhere = connect(server.address, tls=Tls(ca_file=str(tmp_path / "none")))
        with pytest.raises(Unavailable, match="cannot read the TLS authority"):
            await nowhere.get("greeter")


def test_uvloop_can_drive_it(etcd: EtcdServer) -> None:
    async def main() -> None:
        registry = EtcdRegistry(etcd.address)
        async with watching(registry) as watch:
            await registry.register(make_record(), ttl=60)
            await watch.becomes({"a"})
            assert await ids(registry) == ["a"]
        await registry.close()
        await registry.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


async def test_its_state_is_shown(connect: Connect, etcd: EtcdServer) -> None:
    registry = connect(f"micro:secret@{etcd.address}")
    async with watching(registry):
        await registry.register(make_record(), ttl=60)
        assert repr(registry) == (
            f"EtcdRegistry('{etcd.address}', nodes=['/micro/registry/greeter/a'], watches=1)"
        )
