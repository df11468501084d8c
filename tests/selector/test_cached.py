"""Tests of what keeps the known services up to date."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shoal import context
from shoal.errors import ServiceNotFound, Unavailable
from shoal.registry import Change, Node, Record
from shoal.registry.memory import MemoryRegistry
from shoal.selector.filters import version
from shoal.selector.random import RandomSelector
from shoal.testing.clock import FakeClock
from shoal.testing.conformance.selector import FaultyRegistry, call, run

from .parts import make_node


class MuteRegistry(FaultyRegistry):
    """A registry whose watches tell nothing."""

    async def watch(self, name: str | None = None) -> AsyncIterator[Change]:
        await asyncio.Event().wait()
        yield Change("delete", Record(""))


async def test_nodes_are_looked_up_again_behind_the_scenes() -> None:
    async with FakeClock() as clock:
        registry = MuteRegistry()
        selector = RandomSelector(registry, ttl=60)
        (old,) = await run(registry, "greeter", 1)
        assert await call(selector, "greeter") == old
        await registry.deregister(Record("greeter", nodes=(old,)))
        (new,) = await run(registry, "greeter", 1, first=1)
        registry.answer.clear()
        await clock.advance(61)
        assert registry.asked["greeter"] == 2
        assert await call(selector, "greeter") == old  # nobody waits for the answer
        registry.answer.set()
        await clock.advance(0)
        # An answer can get lost: what one misses goes when the next one misses it too.
        await clock.advance(2)
        assert await call(selector, "greeter") == new
        await selector.close()


async def test_a_registry_that_hangs_is_not_waited_for_without_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FakeClock() as clock:
        registry = FaultyRegistry()
        registry.answer.clear()
        selector = RandomSelector(registry, timeout=5)
        waiting = [asyncio.ensure_future(selector.select("greeter")) for _ in range(3)]
        await clock.advance(4.9)
        assert not waiting[0].done()
        await clock.advance(0.2)
        for one in waiting:
            with pytest.raises(Unavailable, match=r"cannot be asked: no answer within 5 s"):
                await one
        assert [record.levelno for record in caplog.records] == [logging.WARNING]
        await selector.close()


async def test_a_registry_in_trouble_is_asked_ever_more_rarely() -> None:
    async with FakeClock() as clock:
        registry = FaultyRegistry()
        selector = RandomSelector(registry)
        (node,) = await run(registry, "greeter", 1)
        await call(selector, "greeter")
        registry.down = True
        registry.break_watches()
        await clock.advance(600)
        assert 20 < registry.asked["greeter"] < 100
        assert await call(selector, "greeter") == node
        assert "1 services stale" in repr(selector)
        registry.down = False
        await clock.advance(31)
        assert registry.watched == 1
        assert "0 services stale" in repr(selector)
        await selector.close()


async def test_deletions_are_ignored_while_the_registry_is_in_trouble() -> None:
    async with FakeClock() as clock:
        registry = FaultyRegistry()
        selector = RandomSelector(registry, ttl=60)
        (node,) = await run(registry, "greeter", 1)
        await call(selector, "greeter")
        registry.down = True
        await clock.advance(61)
        await registry.deregister(Record("greeter", nodes=(node,)))
        await clock.advance(1)
        assert await call(selector, "greeter") == node
        registry.down = False
        await run(registry, "greeter", 1, first=1)
        await clock.advance(62)
        given = {(await call(selector, "greeter")).id for _ in range(20)}
        assert given == {"node-1"}
        await selector.close()


async def test_a_service_that_was_missed_is_asked_for_again_after_a_second() -> None:
    async with FakeClock() as clock:
        registry = MuteRegistry()
        selector = RandomSelector(registry)
        with pytest.raises(ServiceNotFound, match="check that it runs"):
            await selector.select("greeter")
        await run(registry, "greeter", 1)
        await clock.advance(0.9)
        with pytest.raises(ServiceNotFound):
            await selector.select("greeter")
        assert registry.asked["greeter"] == 1
        await clock.advance(0.2)
        await call(selector, "greeter")
        assert registry.asked["greeter"] == 2
        await selector.close()


async def test_a_service_that_was_missed_is_found_as_soon_as_it_starts() -> None:
    async with FakeClock() as clock:
        registry = FaultyRegistry()
        selector = RandomSelector(registry)
        with pytest.raises(ServiceNotFound):
            await selector.select("greeter")
        (node,) = await run(registry, "greeter", 1)
        await clock.advance(0)
        assert await call(selector, "greeter") == node
        assert registry.asked["greeter"] == 1
        await selector.close()


async def test_a_service_that_starts_ends_the_wait_for_the_look_up() -> None:
    async with FakeClock() as clock:
        registry = FaultyRegistry()
        registry.answer.clear()
        selector = RandomSelector(registry)
        waiting = asyncio.ensure_future(selector.select("greeter"))
        await clock.advance(0.1)
        (node,) = await run(registry, "greeter", 1)
        await clock.advance(0)
        assert (await waiting)() == node
        registry.answer.set()
        await clock.advance(0)
        assert (await selector.select("greeter"))() == node
        await selector.close()


async def test_filters_choose_among_all_that_the_first_look_up_tells_of() -> None:
    async with FakeClock() as clock:
        registry = FaultyRegistry()
        await registry.register(Record("greeter", "1.0.0", (Node("old", "10.0.0.1:80"),)))
        registry.answer.clear()
        selector = RandomSelector(registry)
        plain = asyncio.ensure_future(selector.select("greeter"))
        filtered = asyncio.ensure_future(selector.select("greeter", filters=[version("1.0.0")]))
        await clock.advance(0.1)
        await registry.register(Record("greeter", "2.0.0", (Node("new", "10.0.0.2:80"),)))
        await clock.advance(0)
        assert (await plain)().id == "new"
        assert not filtered.done()
        registry.answer.set()
        await clock.advance(0)
        assert (await filtered)().id == "old"
        await selector.close()


async def test_services_nobody_calls_are_forgotten() -> None:
    async with FakeClock() as clock:
        registry = FaultyRegistry()
        selector = RandomSelector(registry, ttl=60, idle=300)
        for name in ("busy", "idle", "running"):
            await run(registry, name, 1)
        running = (await selector.select("running"))()
        await call(selector, "idle")
        for _ in range(10):
            await call(selector, "busy")
            await clock.advance(50)
        assert registry.watched == 2
        selector.mark("running", running, None, 500.0)
        await clock.advance(700)
        assert registry.watched == 0
        assert repr(selector).startswith("RandomSelector(MemoryRegistry(")
        assert repr(selector).endswith(", 0 nodes, 0 of them out, 0 in doubt, 0 services stale)")
        await call(selector, "idle")
        await selector.close()


async def test_the_number_of_services_is_bounded() -> None:
    registry = FaultyRegistry()
    selector = RandomSelector(registry, limit=10)
    for number in range(5):
        await run(registry, f"greeter-{number}", 1)
        await call(selector, f"greeter-{number}")
    for number in range(50):  # a stranger tries names at a gateway
        with pytest.raises(ServiceNotFound):
            await selector.select(f"absent-{number}")
    assert "10 services, 5 nodes" in repr(selector)
    assert all(registry.asked[f"greeter-{number}"] == 1 for number in range(5))
    for number in range(30):
        await run(registry, f"mailer-{number}", 1)
        await call(selector, f"mailer-{number}")
    assert "10 services, 10 nodes" in repr(selector)
    await asyncio.sleep(0)
    assert registry.watched == 10
    await selector.close()


async def test_more_look_ups_at_once_than_the_limit_are_given_up() -> None:
    registry = FaultyRegistry()
    registry.answer.clear()
    selector = RandomSelector(registry, limit=3)
    waiting = [asyncio.ensure_future(selector.select(f"absent-{n}")) for n in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    registry.answer.set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(one) for one in found] == [Unavailable] * 2 + [ServiceNotFound] * 3
    assert "has more than 3 services" in str(found[0])
    await selector.close()


async def test_a_look_up_does_not_inherit_the_call_that_began_it() -> None:
    seen: list[context.Context] = []

    class Curious(MemoryRegistry):
        async def get(self, name: str) -> list[Record]:
            seen.append(context.current.get())
            return await super().get(name)

    registry = Curious()
    await run(registry, "greeter", 1)
    selector = RandomSelector(registry)
    with context.deadline(5), context.with_metadata(user="7"):
        await call(selector, "greeter")
    assert seen == [context.NOTHING]
    await selector.close()


@pytest.mark.parametrize("how", ["raises", "ends", "raises at once", "no generator"])
async def test_a_watch_that_is_worth_nothing_does_no_harm(how: str) -> None:
    class Plain:
        def __aiter__(self) -> Plain:
            return self

        async def __anext__(self) -> Change:
            raise OSError("a bug")

    class Strange(FaultyRegistry):
        def watch(self, name: str | None = None) -> Any:
            if how == "raises at once":
                raise NotImplementedError
            if how == "no generator":
                return Plain()
            return self.broken()

        async def broken(self) -> AsyncIterator[Change]:
            if how == "raises":
                raise KeyError("a bug")
            yield Change("create", Record("somebody else", nodes=(Node("x", "127.0.0.1:1"),)))

    async with FakeClock() as clock:
        registry = Strange()
        (old,) = await run(registry, "greeter", 1)
        selector = RandomSelector(registry)
        assert await call(selector, "greeter") == old
        await registry.deregister(Record("greeter", nodes=(old,)))
        (new,) = await run(registry, "greeter", 1, first=1)
        await clock.advance(61)
        assert await call(selector, "greeter") == new
        assert registry.asked["greeter"] < 15
        await selector.close()


async def test_a_registry_with_a_bug_is_one_in_trouble() -> None:
    class Broken(FaultyRegistry):
        async def get(self, name: str) -> list[Record]:
            raise KeyError("a bug")

    selector = RandomSelector(Broken())
    with pytest.raises(Unavailable, match="'a bug'") as caught:
        await selector.select("greeter")
    assert isinstance(caught.value.__cause__, KeyError)
    await selector.close()


async def test_changes_during_a_look_up_are_not_undone_by_its_answer() -> None:
    class Slow(FaultyRegistry):
        async def get(self, name: str) -> list[Record]:
            answer = await super(FaultyRegistry, self).get(name)  # what is true at first
            await self.answer.wait()
            return answer

    registry = Slow()
    registry.answer.clear()
    old, stays = await run(registry, "greeter", 2)
    selector = RandomSelector(registry)
    waiting = asyncio.ensure_future(selector.select("greeter"))
    for _ in range(5):
        await asyncio.sleep(0)
    await registry.deregister(Record("greeter", nodes=(old,)))
    (new,) = await run(registry, "greeter", 1, first=5)
    for _ in range(5):
        await asyncio.sleep(0)
    registry.answer.set()
    await waiting
    for _ in range(5):
        await asyncio.sleep(0)
    given = {(await call(selector, "greeter")).id for _ in range(100)}
    assert given == {stays.id, new.id}
    await selector.close()


def test_it_serves_one_event_loop() -> None:
    registry = MemoryRegistry()
    selector = RandomSelector(registry)

    async def use() -> None:
        await registry.register(Record("greeter", nodes=(make_node(0),)))
        await call(selector, "greeter")

    one, other = asyncio.new_event_loop(), asyncio.new_event_loop()
    try:
        one.run_until_complete(use())
        with pytest.raises(RuntimeError, match="serves one event loop and is used from another"):
            other.run_until_complete(call(selector, "another service"))
        with pytest.raises(RuntimeError, match="close it before"):
            other.run_until_complete(selector.close())
        one.run_until_complete(selector.close())
        other.run_until_complete(use())
        other.run_until_complete(selector.close())
    finally:
        one.close()
        other.close()


def test_it_can_be_closed_when_its_loop_has_ended() -> None:
    selector = RandomSelector(MemoryRegistry())

    async def use() -> None:
        with pytest.raises(ServiceNotFound):
            await selector.select("greeter")

    asyncio.run(use())
    with pytest.raises(RuntimeError, match="another"):
        asyncio.run(use())

    async def close_and_use() -> None:
        await selector.close()
        await use()
        await selector.close()

    asyncio.run(close_and_use())
