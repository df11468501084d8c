"""Tests of the memory registry."""

from __future__ import annotations

import asyncio

from shoal.registry import Node, Record, Registry
from shoal.registry.memory import MemoryRegistry
from shoal.testing.conformance.registry import RegistryConformance


class TestMemory(RegistryConformance):
    closing_takes = "all"  # services that find each other share the one object

    def setup_method(self) -> None:
        self.registry = MemoryRegistry()

    def make(self) -> Registry:
        return self.registry


async def test_two_registries_know_nothing_of_each_other() -> None:
    one, other = MemoryRegistry(), MemoryRegistry()
    await one.register(Record("greeter", nodes=(Node("a", "127.0.0.1:1"),)))
    assert await other.services() == []
    await one.close()


async def test_a_refresh_is_no_change() -> None:
    registry = MemoryRegistry()
    record = Record("greeter", nodes=(Node("a", "127.0.0.1:1"),))
    changes = registry.watch()
    first = asyncio.ensure_future(anext(changes))
    await asyncio.sleep(0)
    await registry.register(record, ttl=60)
    await registry.register(record, ttl=60)
    assert (await first).action == "create"
    await registry.deregister(record)
    assert (await anext(changes)).action == "delete"
    await registry.close()


async def test_nothing_is_left_in_the_loop_after_closing() -> None:
    registry = MemoryRegistry()
    await registry.register(Record("greeter", nodes=(Node("a", "127.0.0.1:1"),)), ttl=1)
    assert repr(registry) == "MemoryRegistry(['greeter'], nodes=1, watches=0)"
    await registry.close()
    assert repr(registry) == "MemoryRegistry([], nodes=0, watches=0)"
