"""promise_04: a node that is killed costs each client one call at most, and a frozen one little."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import shoal
from bench.reliability import Report
from bench.reliability._load import Load, Result
from bench.reliability._partitions import node_cut_off
from bench.reliability._processes import Fleet, Process, until
from bench.reliability._service import Done, Job, Worker, private_registry
from shoal.errors import ConnectionClosed
from shoal.selector._cached import CachedSelector
from shoal.selector._health import Policy
from shoal.selector.p2c import P2cSelector
from shoal.transport import NO_METADATA, Socket
from shoal.transport.http import HttpTransport

TITLE = "A dead node costs a client at most one error"
WITHOUT = "leaving nodes out that could not be reached"
RATE = 40  # calls a second of each client
WORK = Job(0.01)
TTL = 3.0  # seconds
TTL_FLAGS = (f"--register_ttl={TTL:g}s", "--register_interval=1s")


class CountingTransport(HttpTransport):
    """Knows how often it was asked to connect where."""

    def __init__(self) -> None:
        super().__init__()
        self.dialled: list[str] = []

    async def dial(self, address: str, metadata: Mapping[str, str] = NO_METADATA) -> Socket:
        """Connect."""
        self.dialled.append(address)
        return await super().dial(address, metadata)


@dataclass
class Caller:
    """A client with a selector, a transport and a load of its own."""

    transport: CountingTransport
    work: Load
    repeatable: Load
    selector: P2cSelector


async def prove(report: Report, scale: float) -> None:
    """Kill one of three nodes, and freeze another one, at a steady rate."""
    seconds = max(2.0, 10.0 * scale)
    policy = CachedSelector.policy
    if report.without:
        CachedSelector.policy = Policy(errors=1_000_000)
    try:
        async with Fleet() as fleet:
            services = [await fleet.service("work", *TTL_FLAGS) for _ in range(3)]
            await killed(report, fleet, services, seconds)
        async with Fleet() as fleet:
            services = [await fleet.service("work") for _ in range(3)]
            await frozen(report, fleet, services, seconds)
        await node_cut_off(report, max(4.0, 30.0 * scale))
    finally:
        CachedSelector.policy = policy


async def killed(report: Report, fleet: Fleet, services: list[Process], seconds: float) -> None:
    """Kill a node under load."""
    victim = services[0]
    async with callers(fleet, 4) as clients:
        await asyncio.sleep(seconds / 2)
        dialled = [len(one.transport.dialled) for one in clients]
        loop = asyncio.get_running_loop()
        await victim.kill()
        dead = loop.time()
        registry = private_registry(fleet.domain)
        try:
            gone = await until(lambda: _nodes(registry, 2), "the dead node is not found any more")
            report.check("until it is not discovered any more, of its TTL of 3 s", gone, TTL, "s")
        finally:
            await registry.close()
        await asyncio.sleep(seconds)
        tries = [
            one.transport.dialled[since:].count(victim.address)
            for one, since in zip(clients, dialled, strict=True)
        ]
        took = loop.time() - dead
    calls = sum(len(after(one.work, dead)) for one in clients)
    failed = [one.work.failed() for one in clients]
    report.check("most failed calls of a client, of those under way", max(map(len, failed)), 1, "")
    unsent = sum(not isinstance(one.error, ConnectionClosed) for some in failed for one in some)
    report.check("failed calls that were never sent", unsent, 0, "")
    repeatable = sum(len(one.repeatable.failed()) for one in clients)
    report.check("failed calls that may be repeated", repeatable, 0, "")
    what = f"most probes of a client in {took:.0f} s ({calls} calls in all)"
    report.check(what, max(tries), 8, "")


async def frozen(report: Report, fleet: Fleet, services: list[Process], seconds: float) -> None:
    """Freeze a node under load: connections stay and nothing is answered."""
    async with callers(fleet, 4) as clients:
        await asyncio.sleep(seconds / 2)
        loop = asyncio.get_running_loop()
        services[0].freeze()
        since = loop.time()
        await asyncio.sleep(2 * seconds)
        calls = [one for client in clients for one in after(client.work, since)]
        lost = [one for one in calls if one.error is not None or one.elapsed > 0.9]
        share = 100 * len(lost) / len(calls)
        report.check(f"calls a frozen node got, of {len(calls)}", share, 2, "%", machine=True)
        if report.scale < 1:  # it takes up to a minute
            return
        services[0].thaw()
        thawed = loop.time()
        pid = services[0].ready["pid"]
        back = await until(
            lambda: any(
                one.reply is not None and one.reply.pid == pid
                for client in clients
                for one in after(client.work, thawed)
            ),
            "the node gets calls again",
        )
        report.check("until it gets calls again", back, 60, "s")


def after(load: Load, when: float) -> list[Result]:
    """Return the calls that were due after a moment."""
    return [one for one in load.results if one.due >= when]


async def _nodes(registry: object, count: int) -> bool:
    records = await registry.get("work")  # type: ignore[attr-defined]  # a Registry
    return sum(len(record.nodes) for record in records) <= count


def _load(work: Callable[[Job], Awaitable[Done]]) -> Load:
    return Load(lambda _: work(WORK), RATE)


@asynccontextmanager
async def callers(fleet: Fleet, count: int) -> AsyncIterator[list[Caller]]:
    """Give clients that call at a steady rate, each as if it were alone."""
    clients: list[Caller] = []
    async with AsyncExitStack() as stack:
        for number in range(count):
            transport = CountingTransport()
            registry = private_registry(fleet.domain)
            stack.push_async_callback(registry.close)
            selector = P2cSelector(registry)
            stack.push_async_callback(selector.close)
            client = await stack.enter_async_context(
                shoal.connect(registry=registry, transport=transport, selector=selector)
            )
            worker = shoal.stub(Worker, "work", client, timeout=1.0)
            await worker.work(WORK)
            await asyncio.sleep(number / RATE / count)
            work = await stack.enter_async_context(_load(worker.work))
            repeatable = await stack.enter_async_context(_load(worker.repeatable))
            clients.append(Caller(transport, work, repeatable, selector))
        yield clients
