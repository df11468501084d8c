"""A node looks itself up as others do, and says when they cannot find it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from shoal.errors import Unavailable
from shoal.registry import Node, Record
from shoal.registry._discovery import GRACE, Discovery
from shoal.registry._registration import Registration
from shoal.registry.memory import MemoryRegistry
from shoal.registry.multi import MultiRegistry
from shoal.registry.static import StaticRegistry
from shoal.testing import FakeClock

RECORD = Record("greeter", nodes=(Node("greeter-1", "127.0.0.1:9000"),))


class Failing(MemoryRegistry):
    """A registry whose look-ups fail while they are told to."""

    failing = False
    asked = 0

    async def get(self, name: str) -> Any:
        self.asked += 1
        if self.failing:
            raise Unavailable("no route to the registry")
        return await super().get(name)


@asynccontextmanager
async def looking(
    registry: Any, interval: float = 30.0
) -> AsyncIterator[tuple[Discovery, list[float]]]:
    renewals: list[float] = []
    discovery = Discovery(registry, RECORD, interval=interval, renew=lambda: renewals.append(1))
    discovery.start()
    try:
        yield discovery, renewals
    finally:
        await discovery.stop()


async def test_a_node_that_is_found_is_well() -> None:
    async with FakeClock() as clock:
        registry = Failing()
        await registry.register(RECORD)
        async with looking(registry) as (discovery, renewals):
            await clock.advance(100)
            assert discovery.error is None
            assert not renewals
            assert 3 <= registry.asked <= 6  # once soon, then every interval


async def test_a_node_that_is_missing_registers_again_at_once_and_is_ill_after_a_while() -> None:
    async with FakeClock() as clock:
        registry = MemoryRegistry()
        async with looking(registry) as (discovery, renewals):
            await clock.advance(1.5)
            assert renewals
            assert discovery.error is None  # it is too early to say
            await clock.advance(GRACE + 5)
            assert "does not find greeter-1" in str(discovery.error)
            await registry.register(RECORD)
            await clock.advance(5)
            assert discovery.error is None


async def test_an_id_that_another_process_uses_is_told() -> None:
    async with FakeClock() as clock:
        registry = MemoryRegistry()
        other = replace(RECORD, nodes=(Node("greeter-1", "10.0.0.9:9001"),))
        await registry.register(other)
        async with looking(registry) as (discovery, _):
            await clock.advance(GRACE + 5)
            assert "greeter-1 is found at 10.0.0.9:9001 instead of" in str(discovery.error)


async def test_a_registry_that_cannot_be_asked_is_told_and_nothing_is_registered_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FakeClock() as clock:
        registry = Failing()
        await registry.register(RECORD)
        registry.failing = True
        async with looking(registry) as (discovery, renewals):
            await clock.advance(GRACE + 50)
            assert str(discovery.error) == "no route to the registry"
            assert not renewals
            registry.failing = False
            await clock.advance(5)
            assert discovery.error is None
    assert len([one for one in caplog.records if one.levelname == "WARNING"]) == 1


@pytest.mark.parametrize(
    "registry",
    [
        StaticRegistry("greeter=127.0.0.1:1"),
        MultiRegistry(writers=[StaticRegistry()], readers=[MemoryRegistry()]),
    ],
    ids=["static", "multi"],
)
async def test_registries_that_tell_nobody_are_not_asked(registry: Any) -> None:
    before = len(asyncio.all_tasks())
    async with looking(registry):
        assert len(asyncio.all_tasks()) == before


class Counting(MemoryRegistry):
    def __init__(self) -> None:
        super().__init__()
        self.ttls: Sequence[float | None] = []

    async def register(self, record: Record, *, ttl: float | None = None) -> None:
        self.ttls = [*self.ttls, ttl]
        await super().register(record, ttl=ttl)


async def test_a_registration_is_renewed_at_once_when_asked() -> None:
    async with FakeClock() as clock:
        registry = Counting()
        registration = Registration(registry, RECORD, ttl=90, interval=30)
        await registration.start()
        try:
            await clock.advance(1)
            assert len(registry.ttls) == 1
            registration.renew()
            await clock.advance(0)
            assert registry.ttls == [90, 90]
            await clock.advance(31)
            assert len(registry.ttls) == 3
        finally:
            await registration.stop()
        assert await registry.get("greeter") == []


async def test_a_node_that_a_registry_forgot_is_there_again() -> None:
    """The two together, as a server runs them."""
    async with FakeClock() as clock:
        registry = MemoryRegistry()
        registration = Registration(registry, RECORD, ttl=90, interval=30)
        await registration.start()
        discovery = Discovery(registry, RECORD, interval=30, renew=registration.renew)
        discovery.start()
        try:
            await clock.advance(2)
            await registry.close()  # it forgets everything, as one that was restarted
            assert await registry.get("greeter") == []
            await clock.advance(31)
            assert len(await registry.get("greeter")) == 1
        finally:
            await discovery.stop()
            await registration.stop()
