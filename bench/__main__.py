"""bench: `python -m bench` runs every peer in turn, several rounds, and prints medians."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

from bench import _go, _process, _report, peers

START = 30.0  # seconds a program may take to start, connect or end, beyond the time it measures

Command = tuple[str, ...]
Rounds = dict[str, dict[str, list[dict[str, float | None]]]]


def main() -> int:
    """Runs the benchmark; the exit status is 1 if a peer crashed."""
    arguments = parse(sys.argv[1:])
    commands, versions, skipped = prepare(arguments.only)
    for name, reason in skipped.items():
        print(f"skipped: {name} ({reason})", flush=True)
    cores = _process.cores()
    print(f"{cores}; {arguments.rounds} rounds of {arguments.seconds:g} s", flush=True)

    rounds: Rounds = {}
    failed: dict[str, str] = {}
    for number in range(arguments.rounds):
        for name, command in commands.items():
            if name in failed:
                continue
            print(f"round {number + 1}: {name}", file=sys.stderr, flush=True)
            try:
                measure(command, cores, arguments.seconds, rounds.setdefault(name, {}))
            except _process.Crashed as error:
                failed[name] = str(error)
                print(f"failed: {name}: {error}", flush=True)

    calls = {
        name: {key: _report.medians(cell) for key, cell in cells.items()}
        for name, cells in rounds.items()
        if cells
    }
    print(_report.table(calls))
    if arguments.json is not None:
        environment = _report.environment() | {
            "pinning": str(cores),
            "rounds": arguments.rounds,
            "seconds": arguments.seconds,
            "versions": versions,
        }
        result = {
            "calls": calls,
            "ratios": _report.ratios(calls),
            "environment": environment,
            "skipped": skipped,
            "failed": failed,
        }
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if failed else 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line."""
    known = [*peers.PYTHON, *peers.GO]

    def names(text: str) -> list[str]:
        chosen = [
            name.replace("_", "-") if name.startswith("shoal") else name for name in text.split(",")
        ]
        unknown = sorted(set(chosen) - set(known))
        if unknown:
            raise argparse.ArgumentTypeError(
                f"no peer {', '.join(unknown)}; there are {', '.join(known)}"
            )
        return chosen

    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results here too")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each cell (2)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds over all peers (3)")
    parser.add_argument("--only", type=names, default=known, metavar="NAME,NAME")
    arguments = parser.parse_args(argv)
    if arguments.seconds <= 0 or arguments.rounds < 1:
        parser.error("--seconds and --rounds must be positive")
    return arguments


def prepare(only: Sequence[str]) -> tuple[dict[str, Command], dict[str, str], dict[str, str]]:
    """Returns the commands that can run here, the versions they use, and why others cannot."""
    commands: dict[str, Command] = {}
    versions: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for name in only:
        try:
            if name in peers.GO:
                binary = _go.build(name)
                commands[name] = (str(binary),)
                versions |= _go.versions(binary)
            else:
                needed = (*peers.COMMON, *peers.PYTHON[name])
                versions |= {package: metadata.version(package) for package in needed}
                commands[name] = (sys.executable, "-m", f"bench.peers.{name.replace('-', '_')}")
        except _go.Unavailable as error:
            skipped[name] = str(error)
        except metadata.PackageNotFoundError as error:
            source = "." if error.name == "shoal" else "-r bench/requirements.txt"
            skipped[name] = f"pip install {source}"
    return commands, versions, skipped


def measure(
    command: Command,
    cores: _process.Cores,
    seconds: float,
    cells: dict[str, list[dict[str, float | None]]],
) -> None:
    """Runs one peer at every number of calls in flight and adds to its cells."""
    with _process.run([*command, "server"], cores.server) as server:
        port = server.line(START).strip()
        for concurrency in _report.CONCURRENCY:
            before = server.cpu()
            client = [*command, "client", port, str(concurrency), str(seconds)]
            try:
                with _process.run(client, cores.client) as program:
                    cell = json.loads(program.line(seconds + START))
            except (_process.Crashed, ValueError) as error:
                raise _process.Crashed(f"client at {concurrency} in flight: {error}") from error
            after, made = server.cpu(), cell.pop("calls_made")
            cell["server_cpu_us"] = (
                None if before is None or after is None else (after - before) / made * 1e6
            )
            cells.setdefault(f"c{concurrency}", []).append(cell)


if __name__ == "__main__":
    sys.exit(main())
