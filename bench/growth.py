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
DEARER = 1.3  # by how much the last calls may cost more than the first
PER_CONNECTION = 16.0  # KiB of the server


@dataclass
class Cost:
    """What a call costs after so many of them: microseconds of both processes together."""

    count: int
    microseconds: float


async def call_costs(client: Client, process: Process, counts: list[int]) -> list[Cost]:
    """Call until each of the counts is reached, and return what calls cost there."""
    worker = shoal.stub(Worker, NAME, client, address=process.address)
    job = Job()
    done = 0
    found: list[Cost] = []
    for count in counts:
        while done < count - ROUND:
            await worker.work(job)
            done += 1
        found.append(Cost(count, await cost(worker, process, job)))
        done += 3 * ROUND
    return found


async def cost(worker: Worker, process: Process, job: Job) -> float:
    """Return the microseconds of one call, the least of three rounds."""
    best = float("inf")
    for _ in range(3):
        begun = time.process_time() + processor(process.pid)
        for _ in range(ROUND):
            await worker.work(job)
        best = min(best, time.process_time() + processor(process.pid) - begun)
    return best / ROUND * 1e6


def processor(pid: int) -> float:
    """Return the seconds of processor a process has used."""
    words = Path(f"/proc/{pid}/schedstat").read_text().split()
    return int(words[0]) / 1e9


async def connection_costs(
    client: Client, process: Process, counts: list[int]
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
            found.append(Cost(count, await cost(worker, process, Job())))
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
        costs = await call_costs(client, process, steps(4 * ROUND, calls))
        for one in costs:
            print(f"  {one.count:>9,} calls        {one.microseconds:7.1f} us a call", flush=True)
        report.check(
            f"cost of a call after {costs[-1].count:,} to that after {costs[0].count:,}",
            costs[-1].microseconds / costs[0].microseconds, DEARER, "times",
        )  # fmt: skip
        report.check("growth of the caller", (held().memory - start) / 2**20, 4.0, "MiB")
        among, kib = await connection_costs(client, process, steps(1, connections))
        for one in among:
            print(f"  {one.count:>9,} connections  {one.microseconds:7.1f} us a call", flush=True)
        report.check(
            f"cost of a call among {among[-1].count:,} open connections to that among one",
            among[-1].microseconds / among[0].microseconds, DEARER, "times",
        )  # fmt: skip
        report.check("memory of an idle connection in the server", kib, PER_CONNECTION, "KiB")


def steps(first: int, last: int) -> list[int]:
    """Return counts from the first to the last, each ten times the one before."""
    found = [first]
    while found[-1] * 10 < last:
        found.append(found[-1] * 10)
    return [*found, max(last, first + 4 * ROUND if first > 1 else 2)]


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
