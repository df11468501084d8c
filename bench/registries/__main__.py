"""bench.registries: `python -m bench.registries` times registries and selectors."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench import _process, _report, _servers
from bench.__main__ import measure as measure_calls
from bench.registries import ALL, REGISTRIES, SELECTORS, SERVERS, SIZES

START = 300.0  # seconds a program may take beyond the time it measures: consul takes its time

Figures = dict[str, float | None]
Programs = dict[str, tuple[str, ...]]


def main() -> int:
    """Runs the benchmark; the exit status is 1 if a program crashed."""
    arguments = parse(sys.argv[1:])
    cores = _process.cores()
    failed: dict[str, str] = {}
    rounds: dict[str, list[Figures]] = {}
    wanted = [name for name in arguments.only if name in SERVERS]
    with _servers.running(wanted, cores.server) as (addresses, missing):
        for name in missing:
            print(f"skipped: {name} (not installed: python -m tests.servers)", flush=True)
        names = [name for name in arguments.only if name not in missing]
        print(f"{cores}; {arguments.rounds} rounds of {arguments.seconds:g} s", flush=True)
        for number in range(arguments.rounds):
            for name in names:
                if name in failed:
                    continue
                print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
                try:
                    figures = run(name, addresses.get(name, ""), arguments.seconds, cores)
                except (_process.Crashed, ValueError) as error:
                    failed[name] = str(error)
                    print(f"failed: {name}: {error}", flush=True)
                else:
                    rounds.setdefault(name, []).append(figures)

    results = {name: medians(found) for name, found in rounds.items()}
    print(table(results))
    if arguments.json is not None:
        result = {
            "registries": {name: one for name, one in results.items() if name in REGISTRIES},
            "selectors": {name: one for name, one in results.items() if name in SELECTORS},
            "http_call_us": results.get("call", {}).get("cpu_us"),
            "environment": _report.environment()
            | {"pinning": str(cores), "rounds": arguments.rounds, "seconds": arguments.seconds},
            "failed": failed,
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if failed else 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line."""
    known = [*REGISTRIES, "call", *SELECTORS]

    def names(text: str) -> list[str]:
        chosen = text.split(",")
        unknown = sorted(set(chosen) - set(known))
        if unknown:
            raise argparse.ArgumentTypeError(
                f"no {', '.join(unknown)}; there are {', '.join(known)}"
            )
        return chosen

    parser = argparse.ArgumentParser(prog="python -m bench.registries", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here too")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each figure (2)")
    parser.add_argument("--rounds", type=int, default=1, help="rounds over all (1)")
    parser.add_argument("--only", type=names, default=known, metavar="NAME,NAME")
    arguments = parser.parse_args(argv)
    if arguments.seconds <= 0 or arguments.rounds < 1:
        parser.error("--seconds and --rounds must be positive")
    return arguments


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
        figures: Figures = json.loads(program.line(seconds + START))
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
