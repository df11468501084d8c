"""regression: `python -m bench.regression` fails if a small call costs far more than bare probes.

The margins are wide, as machines that run checks are busy: this is for what was lost by accident,
not for what is measured. CPU time is compared, which others on the machine disturb least.
"""

from __future__ import annotations

import sys

from bench import __main__ as bench
from bench import _process

ROUNDS = 2
SECONDS = 0.4
# What is timed, the probe, calls in flight, and how many times the probe's CPU it may take.
LIMITS = (("shoal-http", "probe_http", "c16", 3.5), ("shoal-native", "probe_mux", "c64", 10.0))


def main() -> int:
    """Runs the peers in turn; the exit status is 1 if one is over its limit."""
    names = [name for row in LIMITS for name in row[:2]]
    commands, _, skipped = bench.prepare(names)
    if skipped:
        print(f"cannot run here: {skipped}")
        return 1
    cores = _process.cores()
    rounds: bench.Rounds = {name: {} for name in names}
    for _ in range(ROUNDS):
        for name, command in commands.items():
            bench.measure(command, cores, SECONDS, rounds[name])
    status = 0
    for name, probe, cell, limit in LIMITS:
        cost, least = (_cost(rounds[peer][cell]) for peer in (name, probe))
        over = cost / least > limit
        status |= over
        print(
            f"{name} at {cell}: {cost:.1f} us of CPU for a call, both sides; {probe} {least:.1f};"
            f" {cost / least:.2f} times (<= {limit:g}){': TOO MUCH' if over else ''}"
        )
    return status


def _cost(cells: list[dict[str, float | None]]) -> float:
    """Returns the CPU time of a call in microseconds, both sides together, of the best round."""
    return min((cell["client_cpu_us"] or 0.0) + (cell["server_cpu_us"] or 0.0) for cell in cells)


if __name__ == "__main__":
    sys.exit(main())
