"""bench.streams: `python -m bench.streams` times the items of streams, one way, the other, both."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from bench import _command, _process, _report, peers
from bench.streams import BARE, CELLS, LARGE, LARGE_SIZE, PEERS, cells

START = 30.0  # seconds a program may take to start, connect or end, beyond the time it measures
GROWTH = ("client_growth_mib", "server_growth_mib")

Figures = dict[str, float | None]
Rounds = dict[str, dict[str, list[Figures]]]


@dataclass(frozen=True, slots=True)
class Mark:
    """What a client has said of itself, and what was seen of its server then."""

    items: int
    time: float
    cpu: float
    memory: int
    last: bool
    server_cpu: float | None
    server_memory: int


def main() -> int:
    """Runs the benchmark; the exit status is 1 if a peer crashed."""
    parser = _command.parser("bench.streams", __doc__, list(PEERS))
    _command.add_loop(parser)
    arguments = parser.parse_args()
    commands, versions, skipped = prepare(arguments.only, arguments.loop)
    for name, reason in skipped.items():
        print(f"skipped: {name} ({reason})", flush=True)
    cores = _process.cores()
    print(
        f"{cores}; {arguments.rounds} rounds of {arguments.seconds:g} s; on {arguments.loop}",
        flush=True,
    )
    rounds: Rounds = {}

    def one(name: str) -> None:
        found = rounds.setdefault(name, {})
        measure(commands[name], cells(name), cores, arguments.seconds, found)

    failed = _command.turns(commands, arguments.rounds, one)
    results = {
        name: {cell: total(found) for cell, found in streams.items()}
        for name, streams in rounds.items()
    }
    print(table(results))
    result = {
        "streams": results,
        "ratios": _report.ratios(results),
        "ratios_to_bare": _report.ratios(results, BARE),
        "environment": _command.environment(arguments, str(cores), versions=versions),
        "skipped": skipped,
        "failed": failed,
    }
    _command.write(arguments.json, result)
    return 1 if failed else 0


def prepare(
    only: Sequence[str], loop: str
) -> tuple[dict[str, tuple[str, ...]], dict[str, str], dict[str, str]]:
    """Returns the commands that can run here, the versions they use, and why others cannot."""
    commands: dict[str, tuple[str, ...]] = {}
    versions: dict[str, str] = {}
    skipped: dict[str, str] = {}
    for name in only:
        try:
            versions |= _command.installed((*peers.COMMON, *PEERS[name]))
        except _process.Unavailable as error:
            skipped[name] = str(error)
        else:
            module = f"bench.streams.{name.replace('-', '_')}"
            commands[name] = (sys.executable, "-m", module, f"--loop={loop}")
    return commands, versions, skipped


def measure(
    command: Sequence[str],
    wanted: Sequence[str],
    cores: _process.Cores,
    seconds: float,
    found: dict[str, list[Figures]],
) -> None:
    """Runs one peer, each stream between two programs of its own, and adds to what was found."""
    for cell in wanted:
        with _process.run([*command, "server"], cores.server) as server:
            client = [*command, "client", server.line(START), cell, str(seconds)]
            try:
                with _process.run(client, cores.client) as program:
                    marks = watch(program, server, seconds)
            except (_process.Crashed, ValueError) as error:
                raise _process.Crashed(f"{cell}: {error}") from error
            found.setdefault(cell, []).append(figures(marks))


def watch(program: _process.Program, server: _process.Program, seconds: float) -> list[Mark]:
    """Looks at both sides whenever the client says that it is at a mark."""
    marks: list[Mark] = []
    while not marks or not marks[-1].last:
        said = json.loads(program.line(seconds + START))
        marks.append(Mark(**said, server_cpu=server.cpu(), server_memory=server.resident()))
    return marks


def figures(marks: Sequence[Mark]) -> Figures:
    """Returns what was measured between the first mark and the last.

    Memory is that of the third, when items still flow, beyond that of the second.
    """
    begin, fifth, flowing, end = marks[0], marks[1], marks[2], marks[-1]
    items = end.items - begin.items
    server = (
        None
        if begin.server_cpu is None or end.server_cpu is None
        else (end.server_cpu - begin.server_cpu) / items * 1e6
    )
    return {
        "rps": items / (end.time - begin.time),
        "client_cpu_us": (end.cpu - begin.cpu) / items * 1e6,
        "server_cpu_us": server,
        "client_growth_mib": (flowing.memory - fifth.memory) / 2**20,
        "server_growth_mib": (flowing.server_memory - fifth.server_memory) / 2**20,
    }


def total(rounds: Sequence[Figures]) -> Figures:
    """Returns the medians, and the most that memory grew in any round."""
    most = {key: round(max(one[key] or 0.0 for one in rounds), 2) for key in GROWTH}
    return _report.medians(rounds) | most


def table(results: _report.Calls) -> str:
    """Returns the results as text, what streams the same together."""
    header = (
        f"{'':7}{'':14}{'items/s':>11}{'MiB/s':>9}{'x ' + peers.BASELINE:>12}{'of bare':>9}"
        f"{'client / server cpu us':>25}{'spread':>8}{'growth MiB':>17}"
    )
    lines = [header, "-" * len(header)]
    ratios, of_bare = _report.ratios(results), _report.ratios(results, BARE)
    for cell in CELLS:
        for peer, streams in results.items():
            if cell not in streams:
                continue
            one = streams[cell]
            rate = one["rps"] if cell == LARGE else None
            both = [_report.number(one[f"{side}_cpu_us"], 0, 1) for side in ("client", "server")]
            grown = [_report.number(one[key], 0, 1) for key in GROWTH]
            lines.append(
                f"{cell:7}{peer:14}"
                + _report.number(one["rps"], 11, 0)
                + _report.number(None if rate is None else rate * LARGE_SIZE / 2**20, 9, 0)
                + _report.number(ratios.get(peer, {}).get(cell), 12, 2)
                + _report.number(of_bare.get(peer, {}).get(cell), 9, 2)
                + f"{' / '.join(both):>25}{one['spread'] or 0.0:8.0%}{' / '.join(grown):>17}"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
