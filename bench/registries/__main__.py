"""bench.registries: `python -m bench.registries` times registries and selectors."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from statistics import median

from bench import _command, _process, _report, _servers
from bench.__main__ import measure as measure_calls
from bench.registries import ALL, REGISTRIES, SELECTORS, SERVERS, SIZES

START = 300.0  # seconds a program may take beyond the time it measures: consul takes its time

Figures = dict[str, float | None]
Programs = dict[str, tuple[str, ...]]


def main() -> int:
    """Runs the benchmark; the exit status is 1 if a program crashed."""
    known = [*REGISTRIES, "call", *SELECTORS]
    arguments = _command.parser("bench.registries", __doc__, known, rounds=1).parse_args()
    cores = _process.cores()
    rounds: dict[str, list[Figures]] = {}
    wanted = [name for name in arguments.only if name in SERVERS]
    with _servers.running(wanted, cores.server) as (addresses, missing):
        for name in missing:
            print(f"skipped: {name} (not installed: python -m tests.servers)", flush=True)
        names = [name for name in arguments.only if name not in missing]
        print(f"{cores}; {arguments.rounds} rounds of {arguments.seconds:g} s", flush=True)

        def one(name: str) -> None:
            figures = run(name, addresses.get(name, ""), arguments.seconds, cores)
            rounds.setdefault(name, []).append(figures)

        failed = _command.turns(names, arguments.rounds, one)

    results = {name: medians(found) for name, found in rounds.items()}
    print(table(results))
    result = {
        "registries": {name: found for name, found in results.items() if name in REGISTRIES},
        "selectors": {name: found for name, found in results.items() if name in SELECTORS},
        "http_call_us": results.get("call", {}).get("cpu_us"),
        "environment": _command.environment(arguments, str(cores)),
        "failed": failed,
    }
    _command.write(arguments.json, result)
    return 1 if failed else 0


def run(name: str, address: str, seconds: float, cores: _process.Cores) -> Figures:
    """Measures a registry, a selector, or the call over http that a choice is part of."""
    if name == "call":
        cells: dict[str, list[Figures]] = {}
        measure_calls((sys.executable, "-m", "bench.peers.shoal_http"), cores, seconds, cells)
        cell = cells["c16"][0]
        sides = (cell["client_cpu_us"], cell["server_cpu_us"])
        return {"cpu_us": None if None in sides else sum(side or 0.0 for side in sides)}
    module, words = ("selectors", [name]) if name in SELECTORS else ("lookups", [name, address])
    command = [sys.executable, "-m", f"bench.registries.{module}", *words, str(seconds)]
    with _process.run(command, cores.client) as program:
        line = program.line(seconds + START)
        try:
            figures: Figures = json.loads(line)
        except ValueError as error:
            raise _process.Crashed(f"said {line[:100]!r}") from error
    return figures


def medians(rounds: Sequence[Figures]) -> Figures:
    """Returns the median of each figure."""
    result: Figures = {}
    for key in rounds[0]:
        values = [value for one in rounds if (value := one[key]) is not None]
        result[key] = median(values) if values else None
    return result


def table(results: dict[str, Figures]) -> str:
    """Returns the results as text."""
    lines: list[str] = []
    registries = {name: one for name, one in results.items() if name in REGISTRIES}
    if registries:
        header = (
            f"{'registry':18}{'nodes':>10}{'look-up p50':>13}{'p99 us':>9}{'missed':>8}"
            f"{'watch p50':>11}{'p99 us':>9}{'idle cpu':>10}"
        )
        lines += [header, "-" * len(header)]
    for name, one in registries.items():
        services, nodes = SIZES.get(name, ALL)
        lines.append(
            f"{name:18}{f'{services}x{nodes}':>10}"
            + _report.number(one["lookup_p50_us"], 13, 0)
            + _report.number(one["lookup_p99_us"], 9, 0)
            + f"{one['missed'] or 0.0:8.1%}"
            + _report.number(one["watch_p50_us"], 11, 0)
            + _report.number(one["watch_p99_us"], 9, 0)
            + f"{one['idle_percent'] or 0.0:9.2f}%"
        )
    selectors = {name: one for name, one in results.items() if name in SELECTORS}
    call = results.get("call", {}).get("cpu_us")
    if selectors:
        header = (
            f"{'selector':18}{'choice of 10':>13}{'of 10,000':>11}{'ratio':>7}{'of a call':>11}"
            f"{'load ms':>9}{'update us':>11}{'of a load':>11}{'cache MiB':>11}"
        )
        lines += ["", header, "-" * len(header)]
    for name, one in selectors.items():
        share = None if not call else (one["choice_10000_us"] or 0.0) / call * 100
        lines.append(
            f"{name:18}"
            + _report.number(one["choice_10_us"], 13, 2)
            + _report.number(one["choice_10000_us"], 11, 2)
            + _report.number(one["choice_ratio"], 7, 2)
            + _report.number(share, 10, 1)
            + "%"
            + _report.number(one["load_ms"], 9, 1)
            + _report.number(one["update_us"], 11, 0)
            + f"{one['update_ratio'] or 0.0:11.2%}"
            + _report.number(one["cache_mib"], 11, 1)
        )
    if call:
        lines.append(f"a call over http: {call:.1f} us of CPU, both sides together")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
