"""Tests of several registries in one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shoal.errors import BadRequest, Unavailable
from shoal.options import Options
from shoal.plugins import PluginError
from shoal.registry import Change, Node, Record, Registry
from shoal.registry.consul import ConsulRegistry
from shoal.registry.memory import MemoryRegistry
from shoal.registry.multi import MultiRegistry
from shoal.testing.conformance._registry import make_record, node_ids, unique
from shoal.testing.conformance.registry import RegistryConformance
from tests.registry.test_consul import becomes
from tests.servers import free_ports, need
from tests.servers.consul import ConsulServer


class TestMulti(RegistryConformance):
    """Both sides write to two registries and read a third one."""

    watch_delay = None

    @pytest.fixture(autouse=True)
    def registries(self) -> None:
        self.parts = MemoryRegistry(), MemoryRegistry(), MemoryRegistry()

    def make(self) -> Registry:
        return MultiRegistry(writers=self.parts[:2], readers=self.parts[2:])


class TestMoving(TestMulti):
    """One side has moved to another registry already, and they still see each other."""

    def setup_method(self) -> None:
        self.turn = 0

    def make(self) -> Registry:
        self.turn = 1 - self.turn
        return MultiRegistry(
            writers=[self.parts[self.turn]], readers=[self.parts[1 - self.turn], "static"]
        )


async def _step(changes: AsyncIterator[Change]) -> tuple[str, list[str]]:
    async with asyncio.timeout(20):
        change = await anext(changes)
    return change.action, [node.id for node in change.record.nodes]


async def begun(
    registry: Registry, changes: AsyncIterator[Change]
) -> asyncio.Task[tuple[str, list[str]]]:
    """Take the first step of a watch of `s`, and return when it has begun."""
    first = asyncio.create_task(_step(changes))
    await asyncio.sleep(0)
    with contextlib.suppress(Unavailable):
        await registry.get("s")
    return first


def quick(address: str, **settings: Any) -> MultiRegistry:
    return MultiRegistry(address, timeout=1.0, **settings)


# What is asked of whom


async def test_names_make_registries() -> None:
    registry = MultiRegistry("static://a=h:1,h:2;b=h:3,memory,read:static://c=h:4")
    try:
        assert await registry.services() == ["a", "b", "c"]
        name = unique()
        await registry.register(make_record(name))
        assert await node_ids(registry, name) == {"latest": ["a"]}
        assert "[static, memory, read:static]" in repr(registry)
    finally:
        await registry.close()


def test_a_service_takes_it_by_its_name() -> None:
    options = Options(registry="multi://memory,consul://10.0.0.1:8500,10.0.0.2:8500")
    name, address = options.plugin("registry")
    assert (name, address) == ("multi", "memory,consul://10.0.0.1:8500,10.0.0.2:8500")
    assert "[memory, consul]" in repr(MultiRegistry(address))


@pytest.mark.parametrize(
    ("address", "error", "match"),
    [
        ("", BadRequest, "which registries"),
        ("zebra", BadRequest, "'zebra' is no registry: known are"),
        ("zebra://a", PluginError, "there is no registry 'zebra'"),
    ],
)
def test_an_address_that_names_none(address: str, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        MultiRegistry(address)


async def test_versions_and_nodes_are_merged() -> None:
    one, two = MemoryRegistry(), MemoryRegistry()
    registry = MultiRegistry(readers=[one, two])
    await one.register(Record("s", "1", (Node("a", "h:1"), Node("b", "h:2"))))
    await two.register(Record("s", "1", (Node("b", "h:9"), Node("c", "h:3"))))
    await two.register(Record("s", "2", (Node("d", "h:4"),)))
    found = await registry.get("s")
    assert {r.version: [n.id for n in r.nodes] for r in found} == {"1": ["a", "b", "c"], "2": ["d"]}
    assert found[0].nodes[1].address == "h:9"
    await registry.register(make_record("s"))  # there is no writer: told to nobody
    assert await one.services() == ["s"]
    assert await registry.get("s") == found


async def test_registries_that_were_given_stay_open() -> None:
    one = MemoryRegistry()
    registry = MultiRegistry(writers=[one])
    await one.register(make_record("theirs"))
    await registry.register(make_record("ours"))
    await registry.close()
    assert await one.services() == ["theirs"]


async def test_a_node_is_gone_when_nobody_has_it() -> None:
    one, two = MemoryRegistry(), MemoryRegistry()
    registry = MultiRegistry(readers=[one, two])
    record = make_record("s", "a")
    await one.register(record)
    await two.register(record)
    changes = registry.watch("s")
    first = await begun(registry, changes)
    await one.deregister(record)
    await asyncio.sleep(0.05)
    assert not first.done()
    await two.deregister(record)
    assert await first == ("delete", ["a"])
    await registry.close()


# One of them is dead


async def test_a_dead_one_breaks_no_other(caplog: pytest.LogCaptureFixture) -> None:
    (port,) = free_ports(1)
    memory = MemoryRegistry()
    registry = quick(f"consul://127.0.0.1:{port}", writers=[memory])
    record = make_record("s", "a")
    changes = registry.watch("s")
    first = await begun(registry, changes)
    with caplog.at_level(logging.INFO, "shoal.registry"):
        await registry.register(record, ttl=60)
        assert await first == ("create", ["a"])
        assert await registry.get("s") == [record]
        assert await registry.services() == ["s"]
        with pytest.raises(Unavailable, match="cannot be reached"):
            await registry.get("perhaps only the other knows")
        assert isinstance(registry.error, Unavailable)
        assert f"consul (consul at 127.0.0.1:{port} cannot be reached" in repr(registry)
        await registry.deregister(record)
        assert await _step(changes) == ("delete", ["a"])
    await registry.close()


async def test_all_are_dead() -> None:
    ports = free_ports(2)
    registry = quick(",".join(f"consul://127.0.0.1:{port}" for port in ports))
    for asked in (
        registry.get("a"), registry.services(), registry.register(make_record("a"), ttl=60),
        registry.deregister(make_record("a")), anext(registry.watch("a")), anext(registry.watch()),
    ):  # fmt: skip
        with pytest.raises(Unavailable, match=rf"{ports[0]} cannot.*; consul.*{ports[1]} cannot"):
            await asked
    await registry.close()


async def test_one_that_cannot_hold_a_record_is_left_out() -> None:
    memory = MemoryRegistry()
    registry = MultiRegistry("mdns", writers=[memory])
    record = make_record("s", address="_INBOX.abc")  # mdns needs a port
    await registry.register(record)
    assert await memory.get("s") == [record]
    assert isinstance(registry.error, BadRequest)
    await registry.close()
    registry = MultiRegistry("mdns")
    with pytest.raises(BadRequest):
        await registry.register(record)
    await registry.close()


async def test_what_a_dead_one_knew_last_counts_until_it_is_back() -> None:
    need(ConsulServer)
    memory = MemoryRegistry()
    async with ConsulServer() as server:
        here = quick(f"consul://{server.address}", writers=[memory])
        there = quick(f"consul://{server.address}?timeout=0.5&wait=1", readers=[memory])
        only, name = ConsulRegistry(server.address), unique()
        await only.register(make_record(name, "only"), ttl=600)
        await here.register(make_record(name, "both"), ttl=600)
        await becomes(lambda: node_ids(there, name), {"latest": ["both", "only"]})
        await server.kill()
        assert await node_ids(there, name) == {"latest": ["both", "only"]}
        assert there.error is not None
        await here.register(make_record(name, "later"), ttl=600)
        assert await node_ids(there, name) == {"latest": ["both", "later", "only"]}
        await server.start()
        seen: dict[str, list[str]] = {}
        async with asyncio.timeout(30):  # consul knows them again, the one told later too
            while seen != {"latest": ["both", "later", "only"]} or there.error or here.error:
                await asyncio.sleep(0.05)
                seen = await node_ids(only, name) if not there.error else {}
                await there.get(name)
        for registry in (here, there, only):
            await registry.close()


async def test_a_watch_ends_when_one_is_back_that_may_have_changed() -> None:
    need(ConsulServer)
    memory = MemoryRegistry()
    async with ConsulServer() as server:
        await server.kill()
        registry = quick(f"consul://{server.address}", readers=[memory])
        changes = registry.watch("s")
        first = await begun(registry, changes)
        await memory.register(make_record("s", "a"))
        assert await first == ("create", ["a"])
        last = await begun(registry, changes)
        await server.start()
        with pytest.raises(Unavailable, match="the registry consul is back"):
            await last
        assert registry.error is None
        await registry.close()
