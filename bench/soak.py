"""soak: `python -m bench.soak --seconds 3600` works a fleet while its members die, and watches it.

Calls, streams, events and calls that are given up go to three services, one of which is killed
and started again all the time. After the first third memory has to stay where it is, sockets
within what is in use, and at the end no task may be left.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median

import shoal
from bench.reliability import Report
from bench.reliability._processes import Fleet, Process
from bench.reliability._service import Job, Worker
from bench.reliability._soaked import Held, Soak, held
from shoal.client import Client

NAME = "soaked"
AT_ONCE = {"calls": 8, "streams": 3, "events": 2, "given up": 3}
PAUSE = 0.02  # seconds between two pieces of work of one worker
LIFE = 5.0  # seconds between two deaths
SAMPLES = 60
NOISE = 2.0  # MiB by which a process that does not grow differs from itself
SETTLED = 1.0  # seconds after which what was given up has ended everywhere
BESIDE = 24  # sockets of discovery, broker, event loop and standard streams


@dataclass
class Samples:
    """What the processes held over the time, the driver first, and what was done."""

    of: list[list[Held]] = field(default_factory=list[list[Held]])
    done: Counter[str] = field(default_factory=Counter[str])
    failed: Counter[str] = field(default_factory=Counter[str])
    left: int = 0
    """Tasks that were left in this process."""
    idle: list[Held] = field(default_factory=list[Held])
    """What the services hold when nobody calls them any more."""
    fresh: list[Held] = field(default_factory=list[Held])
    """What they held before anybody called them."""


async def soak(seconds: float) -> Samples:
    """Work a fleet for so long, and return what was seen."""
    # That events do not reach the dead is no news here.
    logging.getLogger("shoal.broker").setLevel(logging.ERROR)
    samples = Samples()
    before = asyncio.all_tasks()
    async with Fleet() as fleet:
        module = "bench.reliability._soaked"
        flags = ("--register_ttl=5s", "--register_interval=2s")
        stable = [await fleet.start(module, NAME, *flags) for _ in range(2)]
        victim = await fleet.start(module, NAME, *flags)
        async with fleet.connect() as client:
            samples.fresh = [await ask(client, process) for process in stable]
            await work(client, fleet, stable, victim, samples, seconds)
            await asyncio.sleep(SETTLED)
            samples.idle = [await ask(client, process) for process in stable]
        await asyncio.sleep(0)
        samples.left = len(asyncio.all_tasks() - before)
    return samples


async def work(
    client: Client,
    fleet: Fleet,
    stable: list[Process],
    victim: Process,
    samples: Samples,
    seconds: float,
) -> None:
    """Run all workers until the time is over, taking samples."""
    jobs = {"calls": calls, "streams": streams, "events": events, "given up": given_up}
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(again(samples, name, jobs[name], client))
            for name, count in AT_ONCE.items()
            for _ in range(count)
        ]
        tasks.append(group.create_task(dying(fleet, victim, samples)))
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while loop.time() < begun + seconds:
            await asyncio.sleep(seconds / SAMPLES)
            asked = [await ask(client, process) for process in stable]
            samples.of.append([held(), *asked])
        for task in tasks:
            task.cancel()


async def again(
    samples: Samples, name: str, job: Callable[[Client], Awaitable[None]], client: Client
) -> None:
    """Do one kind of work over and over; only what a dying peer explains may fail."""
    while True:
        try:
            await job(client)
            samples.done[name] += 1
        except (shoal.Unavailable, shoal.Timeout) as error:
            samples.failed[type(error).__name__] += 1
        await asyncio.sleep(PAUSE * random.random() * 2)


async def calls(client: Client) -> None:
    """Call."""
    worker = shoal.stub(Worker, NAME, client, timeout=5.0)
    await worker.work(Job(key="calls", error=""))


async def streams(client: Client) -> None:
    """Open a stream both ways, and leave some of them in the middle."""
    worker = shoal.stub(Worker, NAME, client, timeout=5.0)
    left = random.randrange(1, 20)

    async def items() -> AsyncIterator[Job]:
        for _ in range(10):
            yield Job(key="stream")

    replies = worker.echo(items())
    try:
        async for _ in replies:
            left -= 1
            if not left:
                break
    finally:
        await replies.aclose()  # type: ignore[attr-defined]  # the stub's is a generator


async def events(client: Client) -> None:
    """Publish an event."""
    await client.publish(NAME, "an event")


async def given_up(client: Client) -> None:
    """Begin a call that takes long, and give it up."""
    worker = shoal.stub(Worker, NAME, client, timeout=5.0)
    with suppress(TimeoutError):
        async with asyncio.timeout(0.05 * random.random()):
            await worker.work(Job(seconds=1.0, key="given up"))


async def dying(fleet: Fleet, victim: Process, samples: Samples) -> None:
    """Kill a service and start another in its place, over and over."""
    while True:
        await asyncio.sleep(LIFE)
        await victim.kill()
        samples.done["deaths"] += 1
        fleet.processes.remove(victim)
        victim.forget()
        victim = await fleet.start(
            "bench.reliability._soaked", NAME, "--register_ttl=5s", "--register_interval=2s"
        )


async def ask(client: Client, process: Process) -> Held:
    """Return what a service holds."""
    return await shoal.stub(Soak, NAME, client, address=process.address, timeout=30.0).held()


def growth(memory: list[float]) -> float:
    """Return the MiB by which the last third is above the middle one."""
    third = len(memory) // 3
    return (median(memory[-third:]) - median(memory[third:-third])) / 2**20


def judge(report: Report, samples: Samples) -> None:
    """Hold what was seen to what is promised."""
    names = ("caller", "first service", "second service")
    busy = sum(AT_ONCE.values())
    for index, name in enumerate(names):
        seen = [sample[index] for sample in samples.of]
        memory = [float(one.memory) for one in seen]
        report.check(
            f"growth of the {name} after a third of the run, of {median(memory) / 2**20:.0f} MiB",
            growth(memory),
            NOISE,
            "MiB",
        )
        # One for each thing the caller does at a time, and one that is being closed.
        report.check(
            f"sockets of the {name}", max(one.sockets for one in seen), 2 * busy + BESIDE, ""
        )
    report.check("tasks left in the caller", samples.left, 0, "")
    for fresh, idle, name in zip(samples.fresh, samples.idle, names[1:], strict=True):
        # Each idle connection, the broker's too, is served by one; what does not end would be
        # one for each call that was given up.
        extra = idle.tasks - fresh.tasks - max(0, idle.sockets - fresh.sockets)
        what = f"tasks of the {name} above those at its start, beside connections"
        report.check(what, extra, busy, "")
    for name in (*AT_ONCE, "deaths"):
        report.check(f"{name} done", samples.done[name], 1, "", at_most=False)
    total = sum(samples.done.values())
    report.check("calls that failed, of all", 100 * sum(samples.failed.values()) / total, 5.0, "%")


def main() -> int:
    """Run it; the exit status is 1 if something grew."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak")
    parser.add_argument("--seconds", type=float, default=3600.0)
    seconds = parser.parse_args().seconds
    report = Report(11)
    samples = asyncio.run(soak(seconds))
    judge(report, samples)
    print(f"  {dict(samples.done)}, failed {dict(samples.failed)}")
    return 0 if report.passed else 1


if __name__ == "__main__":
    sys.exit(main())
