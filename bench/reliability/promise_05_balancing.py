"""promise_05: one slow node of ten hardly shows in the slowest calls, and choosing stays cheap."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import shoal
from bench.reliability import Report
from bench.reliability._load import steady
from bench.reliability._processes import Fleet
from bench.reliability._service import die_with_parent, make
from shoal.client import CallOptions
from shoal.registry import Node, Record
from shoal.registry.memory import MemoryRegistry
from shoal.selector import Strategy
from shoal.selector.p2c import P2cSelector
from shoal.selector.random import any_node
from shoal.testing import FakeClock

TITLE = "Balancing: one slow node of ten hardly shows"
WITHOUT = "the choice of the better of two nodes: any node gets the call"
USUAL = 0.01  # seconds of work, on average
SLOWER = 20  # times that, at the slow node
SEED = 5


class Uneven:
    """Work whose time varies from call to call."""

    def __init__(self, slower: float) -> None:
        self._slower = slower
        self._chance = random.Random(SEED)

    async def work(self) -> int:
        """Take a while."""
        await asyncio.sleep(self._chance.expovariate(1 / USUAL) * self._slower)
        return os.getpid()


async def prove(report: Report, scale: float) -> None:
    """Simulate ten nodes, run ten nodes, and time choices among few and many."""
    count = max(4000, round(40_000 * scale))
    strategy = any_node if report.without else None
    p99 = [await asyncio.to_thread(simulated, count, slow, report.without) for slow in (1, SLOWER)]
    what = "simulation: p99 with a slow node, of the p99 without"
    report.check(what, p99[1] / p99[0], 1.5, "")
    seconds = max(4.0, 20.0 * scale)
    real = [await run(seconds, slow, strategy) for slow in (1.0, SLOWER)]
    what = f"ten nodes: p99 with a slow one, of the {1000 * real[0]:.0f} ms without"
    report.check(what, real[1] / real[0], 1.5, "", machine=True)
    few, many = await chosen(10), await chosen(10_000)
    what = "time of a choice among 10,000 nodes, of one among 10"
    report.check(what, many / few, 1.5, "", machine=True)


# A simulation: each node does one thing after another, and time is the clock's alone


def simulated(count: int, slower: float, blind: bool) -> float:
    """Return the p99 of the seconds that calls to ten nodes take."""
    return asyncio.run(_simulate(count, slower, blind))


async def _simulate(count: int, slower: float, blind: bool) -> float:
    chance = random.Random(SEED)
    times: list[float] = []
    async with FakeClock() as clock, selecting(10, chance) as selector:
        free = {f"work-{number}": clock.now for number in range(10)}
        choose = await selector.select("work", strategy=any_node if blind else None)
        random.seed(SEED)  # which any_node asks

        async def call() -> None:
            begun = clock.now
            node = choose()
            took = chance.expovariate(1 / USUAL) * (slower if node.id == "work-0" else 1)
            free[node.id] = max(free[node.id], begun) + took
            await asyncio.sleep(free[node.id] - begun)
            selector.mark("work", node, None, clock.now - begun)
            times.append(clock.now - begun)

        calls = []
        due = clock.now
        for _ in range(count):  # at half of what ten nodes can do
            due += chance.expovariate(10 / USUAL / 2)
            clock.block(max(0.0, due - clock.now))
            await asyncio.sleep(0)  # timers that are due
            await asyncio.sleep(0)
            calls.append(asyncio.ensure_future(call()))
        while not all(one.done() for one in calls):
            await clock.advance(1)
    return percentile(times[count // 10 :], 99)


@asynccontextmanager
async def selecting(count: int, chance: random.Random) -> AsyncIterator[P2cSelector]:
    """Give a selector that knows so many nodes of a service."""
    registry = MemoryRegistry()
    nodes = tuple(
        Node(f"work-{number}", f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:80")
        for number in range(count)
    )
    await registry.register(Record("work", nodes=nodes))
    selector = P2cSelector(registry, rng=chance)
    try:
        yield selector
    finally:
        await selector.close()
        await registry.close()


async def chosen(count: int) -> float:
    """Return the seconds a choice and its mark take."""
    best = float("inf")
    async with selecting(count, random.Random(SEED)) as selector:
        choose = await selector.select("work")
        for _ in range(count):  # all are known a little
            selector.mark("work", choose(), None, USUAL)
        for _ in range(20):
            begun = time.perf_counter()
            for _ in range(2000):
                selector.mark("work", choose(), None, USUAL)
            best = min(best, time.perf_counter() - begun)
            await asyncio.sleep(0)
    return best / 2000


# Real nodes


async def run(seconds: float, slower: float, strategy: Strategy | None) -> float:
    """Return the p99 of the seconds that calls to ten nodes take."""
    async with Fleet() as fleet:
        for nodes, slow in ((5, 1.0), (4, 1.0), (1, slower)):
            await fleet.start(__name__, str(nodes), str(slow))
        async with fleet.connect() as client:
            options: CallOptions = {} if strategy is None else {"strategy": strategy}
            stub = shoal.stub(Uneven, "work", client, **options)
            await steady(lambda _: stub.work(), 200, seconds / 4)
            results = await steady(lambda _: stub.work(), 200, seconds)
    return percentile([one.elapsed for one in results], 99)


def percentile(times: Sequence[float], part: int) -> float:
    """Return the time that so many of a hundred do not exceed."""
    return sorted(times)[len(times) * part // 100]


async def serve(count: int, slower: float) -> None:
    """Run so many nodes."""
    async with AsyncExitStack() as stack:
        for _ in range(count):
            service = make(["work"])
            service.handle(Uneven(slower))
            await stack.enter_async_context(service)
        print(json.dumps({"pid": os.getpid()}), flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    die_with_parent()
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
