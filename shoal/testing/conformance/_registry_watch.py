"""Module _registry_watch is the part of the suite of registries that is about watches."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar, Literal

from shoal.registry import Record, Registry
from shoal.testing.conformance._registry import (
    ENDPOINTS,
    Watching,
    make_record,
    unique,
)


class RegistryTools:
    """Two registries of one backend: what one side registers, the other finds.

    The attributes say what a backend truly cannot do; a suite of yours sets them.
    """

    deadline: ClassVar[float] = 20.0
    """Seconds until the other side surely sees a change."""
    ttl: ClassVar[float | None] = 0.2
    """The shortest time to live the backend keeps, None if its nodes never vanish by themselves."""
    watch_delay: ClassVar[float | None] = 0.0
    """Seconds from the first step of a watch until the backend surely knows of it.

    None where look-ups wait until it does.
    """
    service_metadata: ClassVar[bool] = True
    """Whether the metadata of a service, beside that of its nodes, is carried."""
    closing_takes: ClassVar[Literal["own", "all", "nothing"]] = "own"
    """Which registrations closing one side takes away."""

    @abstractmethod
    def make(self) -> Registry:
        """Return a registry; all that one test makes see the same backend."""

    async def publish(
        self, registry: Registry, record: Record, *, ttl: float | None = None
    ) -> None:
        """Make the record known; a backend that is filled in another way overrides it."""
        await registry.register(record, ttl=ttl)

    async def withdraw(self, registry: Registry, record: Record) -> None:
        """Take the record's nodes away again."""
        await registry.deregister(record)

    @asynccontextmanager
    async def _two(self) -> AsyncIterator[tuple[Registry, Registry]]:
        async with asyncio.timeout(4 * self.deadline):
            one, other = self.make(), self.make()
            try:
                yield one, other
            finally:
                await one.close()
                await other.close()

    @asynccontextmanager
    async def _watching(self, registry: Registry, name: str | None) -> AsyncIterator[Watching]:
        watch = Watching(registry.watch(name), self.deadline)
        try:
            await self._begun(registry, name)
            yield watch
        finally:
            await watch.close()

    async def _begun(self, registry: Registry, name: str | None) -> None:
        """Wait until the backend knows of a watch whose first step is under way."""
        await asyncio.sleep(self.watch_delay or 0)
        if self.watch_delay is None:
            await registry.get(name or unique())

    async def _becomes(self, look: Callable[[], Awaitable[object]], expected: object) -> None:
        loop = asyncio.get_running_loop()
        end = loop.time() + self.deadline
        while True:
            found = await look()
            if isinstance(found, Sequence) and not isinstance(found, str):
                found = list(found)
            if found == expected or loop.time() > end:
                assert found == expected
                return
            await asyncio.sleep(0.02)


class RegistryWatches(RegistryTools):
    """What a watch sees."""

    async def test_a_watch_sees_what_comes_and_goes(self) -> None:
        async with self._two() as (one, other):
            record = make_record(unique(), endpoints=ENDPOINTS)
            async with self._watching(other, record.name) as watch:
                await self.publish(one, record)
                change = await watch.first(lambda change: change.action != "delete")
                assert change.record.name == record.name
                assert change.record.version == record.version
                assert change.record.nodes == record.nodes
                await self.withdraw(one, record)
                change = await watch.first(lambda change: change.action == "delete")
                assert [node.id for node in change.record.nodes] == ["a"]

    async def test_a_watch_sees_a_changed_node(self) -> None:
        async with self._two() as (one, other):
            name = unique()
            async with self._watching(other, name) as watch:
                await self.publish(one, make_record(name, address="10.0.0.1:80"))
                await watch.first(lambda change: change.action != "delete")
                changed = make_record(name, address="10.0.0.1:81")
                await self.publish(one, changed)
                await watch.first(
                    lambda c: c.action != "delete" and c.record.nodes == changed.nodes
                )

    async def test_a_watch_of_one_service_sees_no_other(self) -> None:
        async with self._two() as (one, other):
            name = unique()
            async with self._watching(other, name) as watch:
                await self.publish(one, make_record(unique(), "other"))
                await self.publish(one, make_record(f"{name}.mail", "longer"))
                await self.publish(one, make_record(name, "mine"))
                change = await watch.first(lambda change: True)
                assert [node.id for node in change.record.nodes] == ["mine"]

    async def test_a_watch_of_all_sees_every_service(self) -> None:
        async with self._two() as (one, other):
            names = {unique(), unique()}
            async with self._watching(other, None) as watch:
                for name in names:
                    await self.publish(one, make_record(name, f"{name}-1"))
                while names:
                    change = await watch.first(lambda change: change.record.name in names)
                    names.remove(change.record.name)

    async def test_a_watch_and_a_look_up_after_it_began_miss_nothing(self) -> None:
        async with self._two() as (one, other):
            name = unique()
            async with self._watching(other, name) as watch:
                for index in range(10):
                    await self.publish(one, make_record(name, f"n{index}"))
                missing = {f"n{index}" for index in range(10)}
                while missing:
                    change = await watch.first(lambda change: change.action != "delete")
                    missing -= {node.id for node in change.record.nodes}

    async def test_a_watch_sees_a_node_vanish(self) -> None:
        async with self._two() as (one, other):
            record = make_record(unique())
            async with self._watching(other, record.name) as watch:
                await self.publish(one, record, ttl=self.ttl)
                if self.ttl is None:  # then it goes another way
                    await watch.first(lambda change: change.action != "delete")
                    await self.withdraw(one, record)
                change = await watch.first(lambda change: change.action == "delete")
                assert [node.id for node in change.record.nodes] == ["a"]

    async def test_every_watcher_sees_a_change(self) -> None:
        async with self._two() as (one, other):
            record = make_record(unique())
            async with (
                self._watching(other, record.name) as first,
                self._watching(other, None) as second,
                self._watching(one, record.name) as third,
            ):
                await self.publish(one, record)
                for watch in (first, second, third):
                    await watch.first(lambda change: change.record.name == record.name)

    async def test_ending_one_watch_leaves_the_others(self) -> None:
        async with self._two() as (one, other):
            record = make_record(unique())
            async with self._watching(other, record.name) as stays:
                async with self._watching(other, record.name):
                    pass
                await self.publish(one, record)
                await stays.first(lambda change: change.action != "delete")

    # Closing and cancelling.
