"""promise_06: a server with five times the work it can do goes on doing what it can."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Sequence
from contextlib import suppress

import shoal
from bench.reliability import Report, is_off
from bench.reliability._load import Load, Result
from bench.reliability._processes import Fleet
from bench.reliability._service import Job, Worker, main, make
from shoal.server import _admission

TITLE = "Overload: at five times its capacity a server does 80 % of what it can at best"
WITHOUT = "admission of requests"
COMPUTE = Job(seconds=0.004, block=True)  # holds the loop as computing does, without using a core
WAIT = Job(seconds=0.2)  # for something else, as most handlers do
LIMIT = 0.3  # seconds a caller gives
RANDOM = 6


async def prove(report: Report, scale: float) -> None:
    """Measure what comes back in time below capacity, at it, and at five times as much."""
    seconds = max(2.0, 20.0 * scale)
    async with Fleet() as fleet:
        await fleet.start(__name__, "work")
        async with fleet.connect() as client:
            worker = shoal.stub(Worker, "work", client, timeout=LIMIT)
            await _peak(worker, 0.5)
            peak = await _peak(worker, seconds / 2)
            below = await _arrivals(worker, 0.7 * peak, seconds)
            share = 100 * len(refused(below)) / len(below)
            what = "refused of the calls at 70 % of capacity, which come at random times"
            report.check(what, share, 0.5, "%", machine=True)
            flood = await _flood(worker, 5 * peak, seconds)
            flood = flood[len(flood) // 10 :]
            span = flood[-1].due - flood[0].due
            good = [one for one in flood if one.error is None and one.elapsed <= LIMIT]
            share = 100 * len(good) / span / peak
            what = f"in time at five times the capacity of {peak:.0f} a second"
            report.check(what, share, 80, "%", at_most=False, machine=True)
            waits = sorted(one.elapsed for one in refused(flood)) or [LIMIT]
            for part, most in ((50, 10), (90, 50)):
                took = 1000 * waits[len(waits) * part // 100]
                report.check(f"until a refusal, p{part}", took, most, "ms", machine=True)
            hints = [one for one in refused(flood) if not getattr(one.error, "retry_after", None)]
            report.check("refusals without a hint when to try again", len(hints), 0, "")
            other = len(flood) - len(refused(flood)) - sum(one.error is None for one in flood)
            report.check("calls that ended by their time limit", 100 * other / len(flood), 1, "%")
        async with fleet.connect() as client:
            worker = shoal.stub(Worker, "work", client, timeout=10)
            many = await asyncio.gather(
                *(worker.work(WAIT) for _ in range(500)), return_exceptions=True
            )
            failed = [one for one in many if isinstance(one, BaseException)]
            report.check("refused of 500 at once that only wait", len(failed), 0, "")


def refused(results: Sequence[Result]) -> list[Result]:
    """Return the calls the server did not take."""
    return [one for one in results if isinstance(one.error, shoal.TooManyRequests)]


async def _peak(worker: Worker, seconds: float) -> float:
    """Return the replies a second that eight callers get who wait for each."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    done = 0

    async def caller() -> None:
        nonlocal done
        while loop.time() < end:
            with suppress(shoal.TooManyRequests, shoal.Timeout):  # a busy machine is late too
                await worker.work(COMPUTE)
                done += 1

    await asyncio.gather(*(caller() for _ in range(8)))
    return done / seconds


async def _flood(worker: Worker, rate: float, seconds: float) -> list[Result]:
    """Call at a steady rate."""
    async with Load(lambda number: worker.work(COMPUTE), rate) as load:
        await asyncio.sleep(seconds)
    return load.results


async def _arrivals(worker: Worker, rate: float, seconds: float) -> list[Result]:
    """Call at random times, as independent users do."""
    chance = random.Random(RANDOM)
    loop = asyncio.get_running_loop()
    load = Load(lambda number: worker.work(COMPUTE), rate)
    due = loop.time()
    end = due + seconds
    async with asyncio.TaskGroup() as group:
        while (due := due + chance.expovariate(rate)) < end:
            await asyncio.sleep(due - loop.time())
            group.create_task(load.one())
    return load.results


if __name__ == "__main__":
    if is_off(6):
        _admission.LATE = float("inf")
    made = make(sys.argv[1:])
    made.handle(Worker(made))
    main(made)
