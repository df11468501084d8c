"""bench: `python -m bench` runs every peer in turn, several rounds, and prints medians."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from bench import _command, _go, _process, _report, peers

START = 30.0  # seconds a program may take to start, connect or end, beyond the time it measures

Command = tuple[str, ...]
Rounds = dict[str, dict[str, list[dict[str, float | None]]]]


def main() -> int:
    """Runs the benchmark; the exit status is 1 if a peer crashed."""
    arguments = parse(sys.argv[1:])
    commands, versions, skipped = prepare(arguments.only, arguments.loop, arguments.body)
    for name, reason in skipped.items():
        print(f"skipped: {name} ({reason})", flush=True)
    cores = _process.cores()
    print(
        f"{cores}; {arguments.rounds} rounds of {arguments.seconds:g} s;"
        f" names of {arguments.body:,} characters, on {arguments.loop}",
        flush=True,
    )
    rounds: Rounds = {}

    def one(name: str) -> None:
        measure(commands[name], cores, arguments.seconds, rounds.setdefault(name, {}))

    failed = _command.turns(commands, arguments.rounds, one)
    calls = {
        name: {key: _report.medians(cell) for key, cell in cells.items()}
        for name, cells in rounds.items()
        if cells
    }
    print(_report.table(calls))
    result = {
        "calls": calls,
        "ratios": _report.ratios(calls),
        "environment": _command.environment(arguments, str(cores), versions=versions),
        "skipped": skipped,
        "failed": failed,
    }
    _command.write(arguments.json, result)
    return 1 if failed else 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads the command line."""
    parser = _command.parser("bench", __doc__, [*peers.PYTHON, *peers.GO])
    _command.add_loop(parser)
    parser.add_argument(
        "--body",
        type=_command.positive(int),
        default=peers.BODY,
        metavar="N",
        help=f"characters of the name that is sent and comes back ({peers.BODY})",
    )
    return parser.parse_args(argv)


def prepare(
    only: Sequence[str], loop: str = _command.LOOPS[0], body: int = peers.BODY
) -> tuple[dict[str, Command], dict[str, str], dict[str, str]]:
    """Returns the commands that can run here, the versions they use, and why others cannot."""
    commands: dict[str, Command] = {}
    versions: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for name in only:
        try:
            if name in peers.GO:
                binary = _go.build(name)
                commands[name] = (str(binary), f"--body={body}")
                versions |= _go.versions(binary)
            else:
                versions |= _command.installed((*peers.COMMON, *peers.PYTHON[name]))
                module = f"bench.peers.{name.replace('-', '_')}"
                options = (f"--loop={loop}", f"--body={body}")
                commands[name] = (sys.executable, "-m", module, *options)
        except _process.Unavailable as error:
            skipped[name] = str(error)
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
