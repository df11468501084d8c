"""Every limit, interval and pause of the library follows the clock that a test moves."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import shoal
from shoal.broker.memory import MemoryBroker
from shoal.limits import Breaker, Bulkhead, RateLimit
from shoal.message import Message
from shoal.registry import Node, Record
from shoal.registry.memory import MemoryRegistry
from shoal.testing import FakeClock, Faults, Network
from shoal.transport.memory import MemoryTransport


class Work:
    def __init__(self) -> None:
        self.begun = 0
        self.fails = False

    async def do(self, seconds: float) -> float:
        self.begun += 1
        if self.fails:
            raise shoal.InternalServerError("as told")
        await asyncio.sleep(seconds)
        return seconds

    @shoal.endpoint(idempotent=True)
    async def again(self, seconds: float) -> float:
        return await self.do(seconds)


def do(client: Any, seconds: float, **options: Any) -> asyncio.Future[float]:
    return asyncio.ensure_future(shoal.stub(Work, "work", client, **options).do(seconds))


async def ends(clock: FakeClock, work: asyncio.Future[Any], within: float) -> float:
    """Return the seconds of the clock after which it ends."""
    begun = clock.now
    while not work.done():
        assert clock.now - begun <= within, "it does not follow the clock"
        await clock.advance(0.05)
    return clock.now - begun


async def test_the_timeout_of_a_call_and_the_deadline_of_a_block() -> None:
    async with FakeClock() as clock, Network() as network:
        await network.serve(Work())
        call = do(network.client, 3600)
        assert await ends(clock, call, 40) == pytest.approx(30, abs=0.2)
        assert isinstance(call.exception(), shoal.Timeout)
        with shoal.deadline(7):
            call = do(network.client, 3600)
        assert await ends(clock, call, 40) == pytest.approx(7, abs=0.2)
        assert isinstance(call.exception(), shoal.Timeout)


async def test_the_pause_before_another_attempt() -> None:
    faults = Faults(7)
    async with FakeClock() as clock, Network(faults) as network:
        work = Work()
        await network.serve(work)
        faults.cut = 1.0
        call = asyncio.ensure_future(shoal.stub(Work, "work", network.client, retries=3).again(0))
        assert await ends(clock, call, 30) >= 0
        assert isinstance(call.exception(), shoal.Unavailable)


async def test_the_ttl_of_a_registration_and_its_renewal() -> None:
    async with FakeClock() as clock:
        registry = MemoryRegistry()
        record = Record("work", nodes=(Node("work-1", "127.0.0.1:1"),))
        await registry.register(record, ttl=90)
        await clock.advance(89)
        assert await registry.get("work")
        await clock.advance(2)
        assert not await registry.get("work")
        async with Network() as network:
            await network.serve(Work(), register_ttl=90, register_interval=30)
            known = network.settings.get("registry")
            assert isinstance(known, MemoryRegistry)
            await clock.advance(3600)
            assert await known.get("work")


async def test_a_node_that_was_left_out_is_tried_again() -> None:
    faults = Faults(7)
    async with FakeClock() as clock, Network(faults) as network:
        works = [Work(), Work()]
        dying = await network.serve(works[0], register_ttl=3600, register_interval=1000)
        await network.serve(works[1], register_ttl=3600, register_interval=1000)
        for _ in range(20):
            await ends(clock, do(network.client, 0), 5)
        await faults.kill(dying)
        for _ in range(20):
            call = do(network.client, 0)
            await ends(clock, call, 5)
            call.exception()
        begun = works[0].begun
        faults.revive(dying)
        await clock.advance(120)  # longer than any pause between two probes
        for _ in range(40):
            await ends(clock, do(network.client, 0), 5)
        assert works[0].begun > begun


async def test_a_breaker_opens_and_closes() -> None:
    async with FakeClock() as clock, Network() as network:
        work = Work()
        await network.serve(work)
        caller = network.service("caller", middleware=[Breaker()])
        await network.start(caller)
        work.fails = True
        for _ in range(12):
            await ends(clock, call := do(caller.client, 0), 5)
            call.exception()
        begun = work.begun
        await ends(clock, call := do(caller.client, 0), 5)
        assert isinstance(call.exception(), shoal.Unavailable)
        assert work.begun == begun
        work.fails = False
        await clock.advance(60)
        await ends(clock, call := do(caller.client, 0), 5)
        assert call.result() == 0


async def test_a_rate_and_a_bulkhead() -> None:
    async with FakeClock() as clock, Network() as network:
        limits: list[shoal.Middleware] = [
            RateLimit(1, burst=2, endpoints="Work.Do"),
            Bulkhead(1, waiting=1),
        ]
        await network.serve(Work(), middleware=limits)
        calls = [do(network.client, 0) for _ in range(3)]
        await clock.advance(0.1)
        assert sum(isinstance(call.exception(), shoal.TooManyRequests) for call in calls) == 1
        await clock.advance(5)
        running, waiting = do(network.client, 3600), do(network.client, 0)
        await clock.advance(9)
        assert not waiting.done()
        await clock.advance(2)
        assert isinstance(waiting.exception(), shoal.TooManyRequests | shoal.Unavailable)
        await clock.advance(30)
        assert isinstance(running.exception(), shoal.Timeout)


async def test_idle_connections_are_closed() -> None:
    async with FakeClock() as clock, Network() as network:
        await network.serve(Work())
        await ends(clock, do(network.client, 0), 5)
        transport = network.settings.get("transport")
        assert isinstance(transport, MemoryTransport)
        (listener,) = transport._listeners.values()
        assert len(listener.sockets) == 1
        await clock.advance(119)
        assert len(listener.sockets) == 0


async def test_a_service_waits_for_its_calls_and_then_no_longer(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.ERROR)
    async with FakeClock() as clock, Network() as network:
        service = network.service("work", server_grace=10.0, server_linger=5.0)
        service.handle(Work())
        await service.__aenter__()
        call = do(network.client, 3600, timeout=1000)
        await clock.advance(1)
        stopping = asyncio.ensure_future(service.__aexit__(None, None, None))
        took = await ends(clock, stopping, 60)
        assert 14.9 < took < 17
        assert isinstance(call.exception(), shoal.Error)


async def test_a_broker_waits_for_room_and_for_its_deliveries() -> None:
    async def hang(message: Message) -> None:
        await asyncio.sleep(3600)

    async with FakeClock() as clock:
        broker = MemoryBroker(unread=1, timeout=30.0, grace=20.0)
        subscription = await broker.subscribe("news", hang)
        await broker.publish("news", Message())
        await clock.advance(1)
        await broker.publish("news", Message())
        late = asyncio.ensure_future(broker.publish("news", Message()))
        assert await ends(clock, late, 60) == pytest.approx(30, abs=0.2)
        assert isinstance(late.exception(), shoal.Unavailable)
        leaving = asyncio.ensure_future(subscription.unsubscribe())
        assert await ends(clock, leaving, 60) == pytest.approx(20, abs=1.2)
