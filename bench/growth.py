"""growth: `python -m bench.growth` measures what a call costs as their number and connections grow.

The processor's time of one call stays the same from the first to the millionth, and whether one
connection is open or ten thousand; an idle connection costs the memory that is shown.
`--calls 1000000 --connections 10000` is the whole of it; the defaults take half a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import shoal
from bench.reliability import Report
from bench.reliability._processes import Fleet, Process
from bench.reliability._service import Job, Worker
from bench.reliability._soaked import Held, Soak, held
from shoal.client import Client

NAME = "growing"
ROUND = 1000  # calls that are measured together
ROUNDS = 5
DEARER = 1.25  # by how much the last calls may cost more than the first
PER_CONNECTION = 16.0  # KiB of the server


@dataclass
class Cost:
    """What a call costs after, or among, so many: microseconds of both processes together."""

    count: int
    microseconds: float
    fresh: float
    """The same between two that have just begun."""

    @property
    def ratio(self) -> float:
        """By how much it is dearer."""
        return self.microseconds / self.fresh


async def call_costs(
    fleet: Fleet, client: Client, process: Process, counts: list[int]
) -> list[Cost]:
    """Call until each of the counts is reached, and return what calls cost there."""
    worker = shoal.stub(Worker, NAME, client, address=process.address)
    job = Job()
    done = 0
    found: list[Cost] = []
    for count in counts:
        while done < count - ROUND:
            await worker.work(job)
            done += 1
        found.append(await cost(fleet, worker, process, count))
        done += ROUNDS * ROUND
    return found


async def cost(fleet: Fleet, worker: Worker, process: Process, count: int) -> Cost:
    """Return what a call costs, here and between a client and a service that just began.

    They take turns, as what a machine does at one time it may not do at another.
    """
    fresh = await fleet.start("bench.reliability._soaked", f"{NAME}-fresh")
    try:
        async with fleet.connect() as client:
            other = shoal.stub(Worker, NAME, client, address=fresh.address)
            pairs = ((worker, process), (other, fresh))
            best = [float("inf"), float("inf")]
            for turn in range(1 + ROUNDS):
                for index, (one, of) in enumerate(pairs):
                    begun = time.process_time() + processor(of.pid)
                    for _ in range(ROUND):
                        await one.work(Job())
                    seconds = time.process_time() + processor(of.pid) - begun
                    if turn:  # the first warms up
                        best[index] = min(best[index], seconds)
    finally:
        await fresh.kill()
    return Cost(count, *(seconds / ROUND * 1e6 for seconds in best))


def processor(pid: int) -> float:
    """Return the seconds of processor a process has used."""
    words = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(words[0]) / 1e9


async def connection_costs(
    fleet: Fleet, client: Client, process: Process, counts: list[int]
) -> tuple[list[Cost], float]:
    """Open connections until each count is reached; return costs, and KiB of one in the server."""
    worker = shoal.stub(Worker, NAME, client, address=process.address)
    host, _, port = process.address.rpartition(":")
    request = (
        f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        "Micro-Endpoint: Soak.Held\r\nContent-Length: 2\r\n\r\n{}"
    ).encode()
    open_ones: list[asyncio.StreamWriter] = []
    before = await ask(client, process)
    found: list[Cost] = []
    try:
        for count in counts:
            while len(open_ones) < count:
                reader, writer = await asyncio.open_connection(host, int(port))
                open_ones.append(writer)
                if len(open_ones) % 200 == 1:
                    writer.write(request)  # some have been used
                    await reader.readuntil(b"\r\n\r\n")
            found.append(await cost(fleet, worker, process, count))
        after = await ask(client, process)
    finally:
        for writer in open_ones:
            writer.transport.abort()
    return found, (after.memory - before.memory) / counts[-1] / 1024


async def ask(client: Client, process: Process) -> Held:
    """Return what the service holds."""
    return await shoal.stub(Soak, NAME, client, address=process.address, timeout=30.0).held()


async def measure(report: Report, calls: int, connections: int) -> None:
    """Measure, print and hold to the limits."""
    async with Fleet() as fleet, fleet.connect() as client:
        process = await fleet.start("bench.reliability._soaked", NAME)
        start = held().memory
        costs = await call_costs(fleet, client, process, steps(4 * ROUND, calls))
        show("calls", costs)
        report.check(
            f"cost of a call after {costs[-1].count:,} to that of the first",
            costs[-1].ratio, DEARER, "times",
        )  # fmt: skip
        report.check("growth of the caller", (held().memory - start) / 2**20, 4.0, "MiB")
        among, kib = await connection_costs(fleet, client, process, steps(1, connections))
        show("connections", among)
        report.check(
            f"cost of a call among {among[-1].count:,} open connections to that among none",
            among[-1].ratio, DEARER, "times",
        )  # fmt: skip
        report.check("memory of an idle connection in the server", kib, PER_CONNECTION, "KiB")


def show(what: str, costs: list[Cost]) -> None:
    """Print what calls cost."""
    for one in costs:
        print(
            f"  {one.count:>9,} {what:11} {one.microseconds:7.1f} us a call,"
            f" {one.ratio:.2f} times the first",
            flush=True,
        )


def steps(first: int, last: int) -> list[int]:
    """Return counts from the first to the last, each ten times the one before."""
    found = [first]
    while found[-1] * 10 < last:
        found.append(found[-1] * 10)
    return [*found, max(last, first + (ROUNDS + 2) * ROUND if first > 1 else 2)]


def main() -> int:
    """Run it; the exit status is 1 if something is dearer than it may be."""
    parser = argparse.ArgumentParser(prog="python -m bench.growth")
    parser.add_argument("--calls", type=int, default=40_000)
    parser.add_argument("--connections", type=int, default=1_000)
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the service inherits it
    report = Report(11)
    asyncio.run(measure(report, arguments.calls, arguments.connections))
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
