"""Tests of etcd's registries through outages: nothing is missed, and all comes back."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from shoal.errors import Unavailable
from shoal.registry import _etcd_watch
from shoal.registry._etcd_registry import EtcdBase
from shoal.registry.etcd import EtcdRegistry, EtcdSettings
from shoal.registry.etcdv2 import EtcdV2Registry
from tests.registry.etcd_parts import becomes, ids, make_record, watching
from tests.servers import Note, need
from tests.servers._gate import Gate
from tests.servers.etcd import EtcdServer, cluster

RESTARTS = int(os.environ.get("SHOAL_RESTARTS", "3"))
BRISK = EtcdSettings(timeout=2.0)

both = pytest.mark.parametrize("kind", [EtcdRegistry, EtcdV2Registry])


@pytest.fixture
async def server() -> AsyncIterator[EtcdServer]:
    """An etcd that a test may do anything to."""
    need(EtcdServer)
    async with EtcdServer() as server:
        yield server


@asynccontextmanager
async def using(kind: type[EtcdBase], *addresses: str) -> AsyncIterator[list[EtcdBase]]:
    """Make registries, and check that they leave nothing behind."""
    before = asyncio.all_tasks()
    registries = [kind(address, settings=BRISK) for address in addresses]  # type: ignore[call-arg]  # the plugins' arguments
    try:
        yield registries
    finally:
        for registry in registries:
            await registry.close()
    assert asyncio.all_tasks() <= before


@both
async def test_a_watch_misses_nothing_while_it_is_cut_off(
    kind: type[EtcdBase], server: EtcdServer
) -> None:
    async with Gate(server.port) as gate, using(kind, gate.address, server.address) as made:
        registry, other = made
        for id in ("changes", "goes", "stays"):
            await other.register(make_record(id=id), ttl=60)
        async with watching(registry) as watch:
            watch.nodes |= dict.fromkeys(await ids(other), "10.0.0.1:8080")
            await gate.cut()
            await other.deregister(make_record(id="goes"))
            await other.register(make_record(id="changes", address="10.0.0.2:80"), ttl=60)
            await other.register(make_record(id="comes"), ttl=60)
            await becomes(lambda: _is_told(registry), True)
            with pytest.raises(Unavailable, match="cannot be asked: Connection refused"):
                await registry.get("greeter")
            assert "error='etcd at 127.0.0.1" in repr(registry)
            await gate.open()
            await watch.becomes({"changes", "comes", "stays"})
            assert watch.nodes["changes"] == "10.0.0.2:80"
            assert sorted(change.action for change in watch.changes) == [
                "create",
                "delete",
                "update",
            ]
            assert registry.error is None
            assert "error" not in repr(registry)


async def _is_told(registry: EtcdBase) -> bool:
    return registry.error is not None


async def test_a_watch_misses_nothing_that_was_compacted(
    server: EtcdServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with Gate(server.port) as gate, using(EtcdRegistry, gate.address, server.address) as made:
        registry, other = made
        for id in ("changes", "goes", "stays"):
            await other.register(make_record(id=id), ttl=60)
        async with watching(registry) as watch:
            watch.nodes |= dict.fromkeys(await ids(other), "10.0.0.1:8080")
            await gate.cut()
            await other.deregister(make_record(id="goes"))
            await other.register(make_record(id="changes", address="10.0.0.2:80"), ttl=60)
            await other.register(make_record(id="comes"), ttl=60)
            await server.compact()
            await gate.open()
            await watch.becomes({"changes", "comes", "stays"})
            assert watch.nodes["changes"] == "10.0.0.2:80"
            assert len(watch.changes) == 3
            assert "has compacted its history" in caplog.text
            await other.register(make_record(id="later"), ttl=60)
            await watch.becomes({"changes", "comes", "later", "stays"})


async def test_a_watch_misses_nothing_that_v2_has_forgotten(
    server: EtcdServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    addresses = server.address, f"{server.address}/elsewhere"
    async with Gate(server.port) as gate, using(EtcdV2Registry, gate.address, *addresses) as made:
        registry, other, elsewhere = made
        await other.register(make_record(id="goes"), ttl=60)
        async with watching(registry) as watch:
            watch.nodes["goes"] = "10.0.0.1:8080"
            await gate.cut()
            await other.deregister(make_record(id="goes"))
            await other.register(make_record(id="comes"), ttl=60)
            for index in range(1100):  # etcd remembers a thousand events
                await elsewhere.register(make_record(address=f"10.0.0.1:{index + 1}"), ttl=60)
            await gate.open()
            await watch.becomes({"comes"})
            assert "has forgotten its history" in caplog.text


@both
async def test_a_slow_reader_misses_nothing(kind: type[EtcdBase], server: EtcdServer) -> None:
    async with using(kind, server.address, server.address) as (registry, other):
        changes = registry.watch("greeter")
        first = asyncio.ensure_future(anext(changes))
        await asyncio.sleep(0)
        await registry.get("greeter")
        count = 900
        for index in range(count):
            await other.register(make_record(id=f"n{index:03}"))
        told = {(await first).record.nodes[0].id}
        async with asyncio.timeout(60):
            while len(told) < count:
                told.add((await anext(changes)).record.nodes[0].id)
        await changes.aclose()  # type: ignore[attr-defined]  # a generator


@both
async def test_all_comes_back_after_restarts(
    kind: type[EtcdBase], server: EtcdServer, record_property: Note
) -> None:
    async with using(kind, server.address, server.address) as (registry, other):
        await other.register(make_record(id="other"), ttl=60)
        async with watching(registry) as one, watching(registry, None) as every:
            sockets = _sockets()
            for index in range(RESTARTS):
                await (server.kill() if index % 2 else server.stop())
                await server.start()
                await becomes(lambda: ids(registry), ["a"] * bool(index) + ["other"])
                record = make_record(address=f"10.0.0.1:{index + 1}")
                await registry.register(record, ttl=60)
                await one.becomes({"a"})
                for watch in (one, every):
                    await becomes(lambda: _address(watch.nodes), f"10.0.0.1:{index + 1}")  # noqa: B023  # called at once
            for watch in (one, every):  # each registration was told, and told once
                assert len(watch.changes) == RESTARTS
            assert registry.error is None
            assert _sockets() <= sockets + 4
            assert await ids(registry) == ["a", "other"]
            record_property("restarts", RESTARTS)
            record_property("changes to tell", RESTARTS)
            record_property("changes told", len(one.changes))


async def _address(nodes: dict[str, str]) -> str | None:
    return nodes.get("a")


def _sockets() -> int:
    return sum(
        os.path.realpath(f"/proc/self/fd/{one}").rpartition("/")[2].startswith("socket:")
        for one in os.listdir("/proc/self/fd")
    )


@both
async def test_all_comes_back_after_an_etcd_that_hung(
    kind: type[EtcdBase], server: EtcdServer
) -> None:
    async with using(kind, server.address, server.address) as (registry, other):
        async with watching(registry) as watch:
            await registry.register(make_record(), ttl=3)
            await watch.becomes({"a"})
            server.freeze()
            try:
                with pytest.raises(Unavailable, match="has not answered within"):
                    await registry.get("greeter")
                await becomes(lambda: _is_told(registry), True)
            finally:
                server.thaw()
            await becomes(lambda: _register(registry, "a"), True)
            await other.register(make_record(id="b"), ttl=60)
            await watch.becomes({"a", "b"})
            await becomes(lambda: _is_told(registry), False)


async def _register(registry: EtcdBase, id: str) -> bool:
    await registry.register(make_record(id=id), ttl=60)
    return True


@both
async def test_all_comes_back_when_etcd_has_lost_everything(
    kind: type[EtcdBase], server: EtcdServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_etcd_watch, "GRACE", 10.0)
    async with using(kind, server.address, server.address) as (registry, other):
        for index in range(20):  # a history longer than the one that begins then
            await other.register(make_record(id="other", address=f"10.0.0.1:{index + 1}"))
        async with watching(registry) as watch:
            watch.nodes["other"] = "10.0.0.1:20"
            await registry.register(make_record(), ttl=60)
            await watch.becomes({"a", "other"})
            await server.stop()
            await becomes(lambda: _is_told(registry), True)
            shutil.rmtree(server.folder / "data")
            await server.start()
            await registry.register(make_record(), ttl=60)
            await other.register(make_record(id="b"), ttl=60)
            await watch.becomes({"a", "b"})  # not told again of a: for this side it never went
            assert [(one.action, one.record.nodes[0].id) for one in watch.changes] == [
                ("create", "a"),
                ("create", "b"),
                ("delete", "other"),
            ]


@both
async def test_a_node_that_etcd_has_lost_is_put_back(
    kind: type[EtcdBase], server: EtcdServer
) -> None:
    async with using(kind, server.address, server.address) as (registry, other):
        await registry.register(make_record(), ttl=9)
        await server.stop()
        await becomes(lambda: _is_told(registry), True)  # it was to be renewed, and could not
        shutil.rmtree(server.folder / "data")
        await server.start()
        await becomes(lambda: ids(other), ["a"])  # without being registered again


async def test_a_node_is_not_held_for_an_owner_that_stopped_refreshing(
    server: EtcdServer,
) -> None:
    async with using(EtcdRegistry, server.address, server.address) as (registry, other):
        await registry.register(make_record(), ttl=3)
        await server.stop()
        await asyncio.sleep(3.5)
        await server.start()
        await becomes(lambda: ids(other), [])


async def test_another_member_is_asked_when_one_fails() -> None:
    need(EtcdServer)
    async with AsyncExitStack() as stack:
        members = cluster(3)
        entering = [asyncio.ensure_future(stack.enter_async_context(one)) for one in members]
        await asyncio.gather(*entering)
        addresses = ",".join(member.address for member in members)
        async with using(EtcdRegistry, addresses, members[2].address) as (registry, other):
            async with watching(registry) as watch:
                await registry.register(make_record(), ttl=30)
                await watch.becomes({"a"})
                await members[0].kill()
                await becomes(lambda: _register(other, "b"), True)  # once there is a leader
                await watch.becomes({"a", "b"})
                assert await ids(registry) == ["a", "b"]
                await registry.register(make_record(id="c"), ttl=30)
                await watch.becomes({"a", "b", "c"})
                members[1].freeze()
                await members[0].start()
                try:
                    await becomes(lambda: _register(other, "d"), True)
                    await watch.becomes({"a", "b", "c", "d"})
                    assert await ids(registry) == ["a", "b", "c", "d"]
                finally:
                    members[1].thaw()
                await becomes(lambda: _is_told(registry), False)


async def test_without_a_majority_nodes_are_still_found() -> None:
    need(EtcdServer)
    async with AsyncExitStack() as stack:
        members = cluster(3)
        entering = [asyncio.ensure_future(stack.enter_async_context(one)) for one in members]
        await asyncio.gather(*entering)
        strict = EtcdSettings(timeout=2.0, consistency="linearizable")
        careful = EtcdRegistry(members[0].address, settings=strict)
        async with using(EtcdRegistry, members[0].address) as (registry,):
            await registry.register(make_record(), ttl=60)
            assert await ids(careful) == ["a"]
            await members[1].kill()
            await members[2].kill()
            assert await ids(registry) == ["a"]
            with pytest.raises(Unavailable):
                await careful.get("greeter")
            with pytest.raises(Unavailable):
                await registry.register(make_record(id="b"), ttl=60)
        await careful.close()
