"""promise_03: what may not run twice does not, and what may is repeated within a budget."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import shoal
from bench.reliability import Report
from bench.reliability._processes import Fleet
from bench.reliability._service import Job, Worker, main, make
from shoal.client import Client

TITLE = "No handler runs twice unless its author said that it may"
WITHOUT = "the difference between what may be repeated and what may not"
FAST, SLOW, RARE = 0.005, 0.5, 0.02  # a search takes so long, but one in fifty longer
AT_ONCE = 16


@dataclass
class Searches:
    """How many were begun, and how many were slow and went on to their end."""

    begun: int
    slow: int


class Search:
    """An endpoint that is slow now and then, as one with a cold cache is."""

    def __init__(self) -> None:
        self._begun = self._slow = 0
        self._chance = random.Random(3)

    @shoal.endpoint(idempotent=True, hedge=True)
    async def find(self, number: int) -> int:
        """Find something."""
        self._begun += 1
        slow = self._chance.random() < RARE
        await asyncio.sleep(SLOW if slow else FAST)
        self._slow += slow
        return number

    async def counts(self) -> Searches:
        """Tell what was done, and forget it."""
        counts = Searches(self._begun, self._slow)
        self._begun = self._slow = 0
        return counts


async def prove(report: Report, scale: float) -> None:
    """Break calls midway and count how often their handlers ran."""
    count = max(60, round(600 * scale))
    async with Fleet() as fleet:
        service = await fleet.start(__name__, "work", "worker")
        async with fleet.connect() as client, gates(service.address, 2) as addresses:
            worker = shoal.stub(
                Worker, "work", client, timeout=1.0, address=addresses, idempotent=report.without
            )
            runs = await broken_calls(worker, client, count)
            report.check("most runs of one handler: resets, lost replies, 5xx", max(runs), 1, "")
            again = shoal.stub(Worker, "work", client, timeout=1.0, address=addresses)
            failed = await resets_repaired(again, count)
            report.check("failed calls after a reset, where they may be repeated", failed, 0, "")
        async with fleet.connect() as client:
            loads = await outage(shoal.stub(Worker, "work", client), max(2000, 10 * count))
            report.check("attempts a call in a total outage", loads, 1.1, "")
        await hedging(report, fleet, max(1000, 5 * count))


async def broken_calls(worker: Worker, client: Client, count: int) -> list[int]:
    """Return how often each handler ran whose call was broken in one of several ways."""
    errors = ("", "internal", "unavailable", "timeout")

    async def call(number: int) -> None:
        # The key tells the gate what to do to the connection.
        fault = ("reset", "lost", "none")[number % 3]
        job = Job(0.01, error=errors[number % 4], key=f"{fault}-{number}")
        await asyncio.gather(worker.work(job), return_exceptions=True)

    for first in range(0, count, AT_ONCE):
        await asyncio.gather(*(call(number) for number in range(first, first + AT_ONCE)))
    counts = await shoal.stub(Worker, "work", client).counts()
    return list(counts.by_key.values())


async def resets_repaired(worker: Worker, count: int) -> int:
    """Return how many calls failed whose first connection was reset, and may be repeated."""
    for first in range(0, count, AT_ONCE):
        some = (Job(key=f"none-fill{number}") for number in range(first, first + AT_ONCE))
        await asyncio.gather(*(worker.repeatable(job) for job in some))
    results: list[object] = []
    for number in range(count // 10):  # within the budget, which the calls before filled
        job = Job(0.01, key=f"once-{number}")
        results += await asyncio.gather(worker.repeatable(job), return_exceptions=True)
        await asyncio.gather(*(worker.repeatable(Job()) for _ in range(10)))
    return sum(isinstance(one, BaseException) for one in results)


async def outage(worker: Worker, count: int) -> float:
    """Return the attempts that arrive for each call while every one fails."""
    job = Job(error="unavailable")

    async def calls(number: int) -> None:
        for first in range(0, number, AT_ONCE):
            some = (worker.repeatable(job) for _ in range(first, first + AT_ONCE))
            await asyncio.gather(*some, return_exceptions=True)

    await calls(20 * AT_ONCE)  # spends what was saved up
    before = (await worker.counts()).begun
    await calls(count)
    made = -(-count // AT_ONCE) * AT_ONCE
    return ((await worker.counts()).begun - before) / made


async def hedging(report: Report, fleet: Fleet, count: int) -> None:
    """Measure what a second attempt does for the slowest calls, and what it costs."""
    processes = [await fleet.start(__name__, "search", "search") for _ in range(2)]
    async with fleet.connect() as client:
        nodes = [
            shoal.stub(Search, "search", client, address=process.address) for process in processes
        ]
        p99: dict[bool, float] = {}
        for hedge in (False, True):
            hedged = shoal.stub(Search, "search", client, hedge=hedge)
            times: list[float] = []
            await asyncio.gather(*(_caller(hedged, count // 8, times) for _ in range(8)))
            p99[hedge] = 1000 * sorted(times)[len(times) * 99 // 100]
            if not hedge:
                await _counts(nodes)
        counts = await _counts(nodes)
        report.check("p99 with hedging, of the p99 without", p99[True] / p99[False], 0.5, "")
        report.check("attempts a call with hedging", counts.begun / len(times), 1.1, "")
        # Where both attempts are slow, or the budget is used up, one has to end.
        report.check(
            "slow handlers that went on, of the calls", counts.slow / len(times), 0.005, ""
        )


async def _caller(search: Search, count: int, times: list[float]) -> None:
    loop = asyncio.get_running_loop()
    for number in range(count):
        begun = loop.time()
        await search.find(number)
        times.append(loop.time() - begun)


async def _counts(nodes: list[Search]) -> Searches:
    """Return what all nodes did."""
    await asyncio.sleep(2 * SLOW)  # for those that were not cancelled
    counts = [await node.counts() for node in nodes]
    return Searches(sum(one.begun for one in counts), sum(one.slow for one in counts))


# Between client and server


@asynccontextmanager
async def gates(address: str, count: int) -> AsyncIterator[list[str]]:
    """Give addresses of gates to a server that break connections as the requests' keys say."""
    seen: set[bytes] = set()
    async with AsyncExitStack() as stack:
        addresses = []
        for _ in range(count):
            server = await asyncio.start_server(
                lambda r, w: _gate(address, seen, r, w), "127.0.0.1"
            )
            await stack.enter_async_context(server)
            host, port = server.sockets[0].getsockname()
            addresses.append(f"{host}:{port}")
        yield addresses


async def _gate(
    address: str, seen: set[bytes], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    host, _, port = address.rpartition(":")
    there, onward = await asyncio.open_connection(host, int(port))
    back = asyncio.get_running_loop().create_task(_copy(there, writer))
    try:
        while data := await reader.read(65536):
            onward.write(data)
            fault, _, key = data.partition(b'"key":"')[2].partition(b'"')[0].partition(b"-")
            if fault == b"once" and key in seen:
                continue
            seen.add(key)
            if fault == b"lost":
                back.cancel()  # the handler runs, and nobody ever hears of it
            elif fault in (b"reset", b"once"):
                await asyncio.sleep(0.005)  # the handler has begun
                writer.transport.abort()
                return
    except OSError:
        return
    finally:
        back.cancel()
        onward.close()
        writer.close()
        await asyncio.gather(back, return_exceptions=True)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


if __name__ == "__main__":
    name, handler = sys.argv[1:]
    made = make([name])
    made.handle(Search() if handler == "search" else Worker(made))
    main(made)
