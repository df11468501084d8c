"""Module _selector_cache tests how selectors follow what happens in the registry."""

from __future__ import annotations

import asyncio

import pytest

from shoal import context
from shoal.errors import (
    ConnectionClosed,
    ServiceNotFound,
    Timeout,
    Unavailable,
)
from shoal.registry import Node, Record
from shoal.selector.filters import version
from shoal.testing.conformance._selector import (
    SelectorSetting,
    call,
    names,
    ready,
    run,
)


class CacheTests(SelectorSetting):
    """What a selector knows of services: when it asks, and what it does when it cannot."""

    # What changes

    async def test_a_node_that_comes_gets_calls_and_one_that_goes_gets_none(self) -> None:
        async with self._setup() as (registry, selector):
            (old,) = await run(registry, name := next(names), 1)
            assert await call(selector, name) == old
            (new,) = await run(registry, name, 1, first=1)
            await self._becomes(lambda: self._given(selector, name), {old.id, new.id})
            await registry.deregister(Record(name, nodes=(old,)))
            await self._becomes(lambda: self._given(selector, name), {new.id})

    async def test_a_node_that_moved_is_called_where_it_is(self) -> None:
        async with self._setup() as (registry, selector):
            (node,) = await run(registry, name := next(names), 1)
            old = (await selector.select(name))()
            moved = Node(node.id, "127.0.0.1:9999", node.metadata)
            await registry.register(Record(name, nodes=(moved,)))

            async def address() -> str:
                return (await call(selector, name)).address

            await self._becomes(address, moved.address)
            selector.mark(name, old, ConnectionClosed(), 0.001)  # says nothing of the new process
            assert await address() == moved.address

    async def test_a_service_that_vanished_is_not_found(self) -> None:
        async with self._setup() as (registry, selector):
            (node,) = await run(registry, name := next(names), 1)
            choose = await selector.select(name)
            given = choose()
            await registry.deregister(Record(name, nodes=(node,)))
            # The last node may still answer: it need not be forgotten before it does not.
            selector.mark(name, given, ConnectionClosed(), 0.001)
            await self._becomes(lambda: self._missing(selector, name), True)
            selector.mark(name, given, ConnectionClosed(), 0.001)

    async def test_a_service_that_starts_after_it_was_missed_is_found(self) -> None:
        async with self._setup() as (registry, selector):
            name = next(names)
            assert await self._missing(selector, name)
            await run(registry, name, 1)
            await self._becomes(lambda: self._missing(selector, name), False)

    async def test_marks_of_strangers_are_no_error(self) -> None:
        async with self._setup() as (registry, selector):
            await run(registry, name := next(names), 1)
            stranger = Node("stranger", "127.0.0.1:1")
            selector.mark("never asked for", stranger, ConnectionClosed(), 0.1)
            await selector.select(name)
            selector.mark(name, stranger, ConnectionClosed(), 0.1)
            selector.mark(name, stranger, None, 0.1)

    # The registry in trouble

    async def test_without_a_registry_nothing_can_be_told(self) -> None:
        async with self._setup() as (registry, selector):
            name = next(names)
            registry.down = True
            with pytest.raises(Unavailable, match=name) as caught:
                await selector.select(name)
            assert not isinstance(caught.value, ServiceNotFound)
            registry.down = False
            await run(registry, name, 1)

            async def found() -> bool:
                try:
                    return bool(await selector.select(name))
                except Unavailable:
                    return False

            await self._becomes(found, True)

    async def test_known_nodes_are_given_while_the_registry_is_down(self) -> None:
        if not self.caches:
            return
        async with self._setup() as (registry, selector):
            (node,) = await run(registry, name := next(names), 1)
            await selector.select(name)
            registry.down = True
            registry.break_watches()
            before = registry.asked[name]

            async def asked_again() -> bool:
                assert await call(selector, name) == node
                return registry.asked[name] > before + 1

            await self._becomes(asked_again, True)
            registry.down = False
            (new,) = await run(registry, name, 1, first=1)
            await self._becomes(lambda: self._given(selector, name), {node.id, new.id})

    async def test_a_watch_that_is_lost_is_begun_anew(self) -> None:
        async with self._setup() as (registry, selector):
            (old,) = await run(registry, name := next(names), 1)
            for first in range(1, 4):
                await selector.select(name)
                registry.break_watches()
                (new,) = await run(registry, name, 1, first=first)
                await registry.deregister(Record(name, nodes=(old,)))
                await self._becomes(lambda: self._given(selector, name), {new.id})
                old = new

    # Asking the registry

    async def test_many_calls_ask_once(self) -> None:
        if not self.caches:
            return
        async with self._setup() as (registry, selector):
            await run(registry, name := next(names), 3)
            registry.answer.clear()
            waiting = [asyncio.ensure_future(selector.select(name)) for _ in range(50)]
            await self._becomes(lambda: ready(registry.asked[name]), 1)
            registry.answer.set()
            for choose in await asyncio.gather(*waiting):
                choose()
            for _ in range(50):
                await selector.select(name, filters=[version("latest")])
            assert registry.asked[name] == 1

    async def test_one_that_gives_up_takes_nothing_from_the_others(self) -> None:
        async with self._setup() as (registry, selector):
            (node,) = await run(registry, name := next(names), 1)
            registry.answer.clear()
            first, second, third = (asyncio.ensure_future(selector.select(name)) for _ in range(3))
            await self._becomes(lambda: ready(registry.asked[name] > 0), True)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            third.cancel()
            registry.answer.set()
            assert (await second)() == node
            with pytest.raises(asyncio.CancelledError):
                await third

    async def test_a_look_up_is_over_with_the_deadline_of_the_call(self) -> None:
        async with self._setup() as (registry, selector):
            (node,) = await run(registry, name := next(names), 1)
            registry.answer.clear()
            patient = asyncio.ensure_future(selector.select(name))
            with context.deadline(0.05), pytest.raises(Timeout, match=name):
                await selector.select(name)
            registry.answer.set()
            assert (await patient)() == node

    async def test_a_service_nobody_runs_is_not_asked_for_all_the_time(self) -> None:
        if not self.caches:
            return
        async with self._setup() as (registry, selector):
            loop = asyncio.get_running_loop()
            begun = loop.time()
            for _ in range(100):
                assert await self._missing(selector, "absent")
            assert registry.asked["absent"] <= 1 + (loop.time() - begun) / 0.5

    # The end

    async def test_closing_leaves_nothing_behind(self) -> None:
        before = asyncio.all_tasks()
        async with self._setup() as (registry, selector):
            await run(registry, name := next(names), 3)
            await selector.select(name)
            assert await self._missing(selector, "absent")
            await selector.close()
            assert asyncio.all_tasks() <= before
            assert registry.watched == 0
            await selector.close()

    async def test_it_can_be_used_again_after_closing(self) -> None:
        async with self._setup() as (registry, selector):
            (node,) = await run(registry, name := next(names), 1)
            given = (await selector.select(name))()
            await selector.close()
            selector.mark(name, given, None, 0.1)
            assert await call(selector, name) == node

    async def test_closing_ends_the_wait_of_calls(self) -> None:
        async with self._setup() as (registry, selector):
            await run(registry, name := next(names), 1)
            registry.answer.clear()
            waiting = asyncio.ensure_future(selector.select(name))
            await self._becomes(lambda: ready(registry.asked[name] > 0), True)
            if not self.caches:
                registry.answer.set()
                await waiting
                return
            await selector.close()
            with pytest.raises(Unavailable):
                await waiting
