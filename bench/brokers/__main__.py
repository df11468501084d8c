"""bench.brokers: `python -m bench.brokers` times events from publisher to handler."""

from __future__ import annotations

import json
import sys

from bench import _command, _process, _report, _servers
from bench.brokers import BARE, BROKERS, FASTSTREAM, MEMORY, SERVERS, SERVICE, SHOAL, Peer

START = 60.0  # seconds a program may take beyond the time it measures

Rounds = dict[str, dict[str, dict[str, list[dict[str, float | None]]]]]
Results = dict[str, dict[str, _report.Cells]]


def main() -> int:
    """Runs the benchmark; the exit status is 1 if a peer crashed."""
    arguments = _command.parser("bench.brokers", __doc__, list(BROKERS)).parse_args()
    cores = _process.cores()
    wanted = sorted({SERVERS[name] for name in arguments.only if name in SERVERS})
    rounds: Rounds = {}
    with _servers.running(wanted, cores.server) as (addresses, missing):
        for name in missing:
            print(f"skipped: {name} (not installed: python -m tests.servers)", flush=True)
        peers = {
            (broker, peer): program
            for broker in arguments.only
            if SERVERS.get(broker) not in missing
            for peer, program in BROKERS[broker].items()
        }
        for key, reason in lacking(peers).items():
            print(f"skipped: {' '.join(key)} ({reason})", flush=True)
            del peers[key]
        print(f"{cores}; {arguments.rounds} rounds of {arguments.seconds:g} s", flush=True)

        def one(name: str) -> None:
            broker, _, peer = name.partition(" ")
            address = addresses.get(SERVERS.get(broker, ""), "")
            cells = measure(peers[broker, peer], address, arguments.seconds, cores.client)
            for cell, figures in cells.items():
                known = rounds.setdefault(broker, {}).setdefault(peer, {})
                known.setdefault(cell, []).append(figures)

        failed = _command.turns([" ".join(key) for key in peers], arguments.rounds, one)

    results: Results = {
        broker: {
            peer: {name: _report.medians(cell) for name, cell in cells.items()}
            for peer, cells in peer_cells.items()
        }
        for broker, peer_cells in rounds.items()
    }
    print(table(results))
    result = {
        "brokers": results,
        "ratios": ratios(results),
        "environment": _command.environment(arguments, str(cores)),
        "failed": failed,
    }
    _command.write(arguments.json, result)
    return 1 if failed else 0


def lacking(peers: dict[tuple[str, str], Peer]) -> dict[tuple[str, str], str]:
    """Returns what cannot run here, and why."""
    reasons = {}
    for key, peer in peers.items():
        try:
            _command.installed((*peer.needs, "uvloop"))
        except _process.Unavailable as error:
            reasons[key] = str(error)
    return reasons


def measure(
    peer: Peer, address: str, seconds: float, core: int | None
) -> dict[str, dict[str, float | None]]:
    """Runs one peer and returns its cells; raises Crashed."""
    command = [sys.executable, "-m", f"bench.brokers.{peer.module}", peer.argument, address]
    with _process.run([*command, str(seconds)], core) as program:
        line = program.line(2 * seconds + START)
        try:
            cells: dict[str, dict[str, float | None]] = json.loads(line)
        except ValueError as error:
            raise _process.Crashed(f"said {line[:100]!r}") from error
    return cells


def ratios(results: Results) -> dict[str, dict[str, float]]:
    """Divides Shoal's rates, and what others take of the CPU, at 64 publications in flight."""
    found: dict[str, dict[str, float]] = {}
    for broker, peers in results.items():
        for ours, other in ((SHOAL, BARE), (SHOAL, FASTSTREAM), (SERVICE, FASTSTREAM)):
            _compare(found.setdefault(broker, {}), peers, ours, peers, other)
    nats = results.get("nats", {})
    for ours in (SHOAL, SERVICE):
        memory = found.setdefault(MEMORY, {})
        _compare(memory, results.get(MEMORY, {}), ours, nats, FASTSTREAM, "faststream on nats")
    return {broker: figures for broker, figures in found.items() if figures}


def _compare(
    into: dict[str, float],
    peers: dict[str, _report.Cells],
    ours: str,
    others: dict[str, _report.Cells],
    other: str,
    called: str = "",
) -> None:
    one, two = peers.get(ours, {}).get("c64"), others.get(other, {}).get("c64")
    if one is None or two is None:
        return
    for figure, (above, below) in {
        "events/s": (one["rps"], two["rps"]),
        "cpu": (two["cpu_us"], one["cpu_us"]),
    }.items():
        if above and below:
            into[f"{ours} / {called or other}, {figure}"] = round(above / below, 2)


def table(results: Results) -> str:
    """Returns the results as text."""
    header = (
        f"{'publish to handler':32}{'c1: p50':>9}{'p99 us':>9}{'events/s':>10}"
        f"{'c64: events/s':>15}{'p50':>9}{'p99 us':>9}{'cpu us':>9}{'spread':>8}"
    )
    lines = [header, "-" * len(header)]
    for broker, peers in results.items():
        for peer, cells in peers.items():
            one, many = cells["c1"], cells["c64"]
            lines.append(
                f"{broker + ' ' + peer:32}"
                + "".join(_report.number(one[name], 9, 0) for name in ("p50_us", "p99_us"))
                + _report.number(one["rps"], 10, 0)
                + _report.number(many["rps"], 15, 0)
                + "".join(_report.number(many[name], 9, 0) for name in ("p50_us", "p99_us"))
                + _report.number(many["cpu_us"], 9, 1)
                + f"{many['spread'] or 0.0:8.0%}"
            )
    for broker, figures in ratios(results).items():
        lines += [f"{broker}: {name} {ratio:.2f}" for name, ratio in figures.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
