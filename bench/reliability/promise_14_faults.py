"""promise_14: users can prove their own code: faults a seed repeats, in a time that they move."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from bench.reliability import Report
from bench.reliability._processes import Fleet
from bench.reliability._simulated import CALLS, PACE

TITLE = "Faults for users: a plan that a seed repeats, and a clock that a test moves"
WITHOUT = "the seed of the plan"


async def prove(report: Report, scale: float) -> None:
    """Simulate the same hour in several processes, and other hours."""
    others = max(1, round(5 * scale))
    begun = time.perf_counter()
    async with Fleet() as fleet:
        same = await asyncio.gather(*(run(fleet, 7, names) for names in ("1", "2")))
        different = [await run(fleet, 8 + number, "0") for number in range(others)]
    elapsed = time.perf_counter() - begun
    digests = {one["digest"] for one in same}
    report.check("different outcomes of one seed in two processes", len(digests), 1, "")
    every = digests | {one["digest"] for one in different}
    report.check("different outcomes of as many seeds", len(every), 1 + others, "", at_most=False)
    one = same[0]
    report.check("seconds that passed in the simulation", one["seconds"], CALLS * PACE - 1, "s",
                 at_most=False)  # fmt: skip
    report.check("seconds that all simulations took", elapsed, 15.0 * (2 + others), "s",
                 machine=True)  # fmt: skip
    for kind, count in one["faults"].items():
        report.check(f"messages that met {kind}", count, 1, "", at_most=False)
    report.check("partitions and deaths", one["places"], 2, "", at_most=False)
    report.check("orders a careless handler took twice, found", one["twice"], 1, "", at_most=False)
    # What was left half done counts neither as done nor as failed only if somebody waits for ever.
    report.check("calls, streams and events without an end", 3 * CALLS - one["done"]
                 - one["failed"], 0, "")  # fmt: skip


async def run(fleet: Fleet, seed: int, hash_seed: str) -> dict[str, Any]:
    """Return what one simulation told."""
    process = await fleet.start("bench.reliability._simulated", str(seed), PYTHONHASHSEED=hash_seed)
    return process.ready
