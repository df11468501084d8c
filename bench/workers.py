"""workers: `python -m bench.workers` times a service with one worker and with one for each core.

Handlers compute for about a millisecond, always the same, so that cores are what there may be too
few of. The service is that of promise 10, whose proof holds its figures to limits.
"""

from __future__ import annotations

import os
import sys

from bench import _command, _process, _report, load
from bench.reliability._processes import Ended, Fleet
from bench.reliability.promise_10_processes import measure, start
from shoal.client import Request

WORK = Request("proof", "Hasher.Work", 2_000, str)  # rounds of hashing
ONE = "1"

Figures = dict[str, float | None]


def main() -> int:
    """Runs the comparison; the exit status is 1 if a service did not start."""
    most = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    known = [ONE] if most == 1 else [ONE, str(most)]
    arguments = _command.parser("bench.workers", __doc__, known).parse_args()
    print(
        f"{most} cores, not pinned; {arguments.rounds} rounds of {arguments.seconds:g} s",
        flush=True,
    )
    rounds: dict[str, list[Figures]] = {}

    def one(workers: str) -> None:
        load.RUN["uvloop"](run(int(workers), arguments.seconds, rounds.setdefault(workers, [])))

    failed = _command.turns(arguments.only, arguments.rounds, one)
    results = {name: _report.medians(found) for name, found in rounds.items() if found}
    rates = {name: found["rps"] or 0.0 for name, found in results.items()}
    ratios = {name: round(rate / rates[ONE], 2) for name, rate in rates.items() if ONE in rates}
    print(table(results, ratios))
    result = {
        "workers": results,
        "ratios": ratios,
        "environment": _command.environment(arguments, "not pinned"),
        "failed": failed,
    }
    _command.write(arguments.json, result)
    return 1 if failed else 0


async def run(workers: int, seconds: float, found: list[Figures]) -> None:
    """Starts a service with so many workers, calls it from here, and adds what was measured."""
    try:
        async with Fleet() as fleet:
            parent = await start(fleet, workers)
            async with fleet.connect() as client:
                rate, cost = await measure(client, parent.ready["pids"], seconds, WORK)
    except Ended as error:
        raise _process.Crashed(str(error)) from error
    found.append({"rps": rate, "cpu_us": cost * 1e6, "busy": rate * cost / workers})


def table(results: dict[str, Figures], ratios: dict[str, float]) -> str:
    """Returns the results as text."""
    header = f"{'workers':12}{'calls/s':>10}{'x 1':>8}{'cpu us':>10}{'busy':>8}{'spread':>8}"
    lines = [header, "-" * len(header)]
    for name, found in results.items():
        lines.append(
            f"{name:12}"
            + _report.number(found["rps"], 10, 0)
            + _report.number(ratios.get(name), 8, 2)
            + _report.number(found["cpu_us"], 10, 0)
            + f"{found['busy'] or 0.0:8.0%}{found['spread'] or 0.0:8.0%}"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
