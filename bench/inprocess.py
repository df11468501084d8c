"""inprocess: `python -m bench.inprocess` compares calls within one process, over each transport.

Service and client are in this process and its event loop, so that its CPU time is that of both
sides. Over `memory` there is no kernel in between; `http` is Go Micro's framing over loopback,
`native` Shoal's own protocol.
"""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import shoal
from bench import _command, _process, _report, load, peers
from bench.peers.shoal_http import Greeter
from shoal.registry.memory import MemoryRegistry
from shoal.transport import Transport
from shoal.transport.http import HttpTransport
from shoal.transport.memory import MemoryTransport

TRANSPORTS: dict[str, Callable[[], Transport]] = {
    "memory": MemoryTransport,
    "http": lambda: HttpTransport(native=False),
    "native": HttpTransport,
}
BASE = "memory"
IN_FLIGHT = (1, 16)


def main() -> int:
    """Runs the comparison."""
    parser = _command.parser("bench.inprocess", __doc__, list(TRANSPORTS))
    _command.add_loop(parser)
    arguments = parser.parse_args()
    core = _process.cores().client
    _process.pin(core)
    pinning = "not pinned" if core is None else f"all on core {core}"
    print(
        f"{pinning}; {arguments.rounds} rounds of {arguments.seconds:g} s; on {arguments.loop}",
        flush=True,
    )
    rounds: dict[str, dict[str, list[dict[str, float | None]]]] = {}

    def one(name: str) -> None:
        cells = rounds.setdefault(name, {})
        load.RUN[arguments.loop](measure(TRANSPORTS[name](), arguments.seconds, cells))

    _command.turns(arguments.only, arguments.rounds, one)
    calls = {
        name: {key: _report.medians(cell) for key, cell in cells.items()}
        for name, cells in rounds.items()
    }
    print(table(calls))
    result = {
        "calls": calls,
        "ratios": ratios(calls),
        "environment": _command.environment(arguments, pinning),
    }
    _command.write(arguments.json, result)
    return 0


async def measure(
    transport: Transport, seconds: float, cells: dict[str, list[dict[str, float | None]]]
) -> None:
    """Makes calls over one transport and adds what they cost."""
    name = load.name(peers.BODY)
    async with connected(transport) as call:
        load.check(name, await call(name))
        for in_flight in IN_FLIGHT:
            await load.calls(call, name, in_flight, min(load.WARM_UP, seconds))
            wall, cpu = time.perf_counter(), time.process_time()
            made = len(await load.calls(call, name, in_flight, seconds))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            cell: dict[str, float | None] = {"rps": made / wall, "cpu_us": cpu / made * 1e6}
            cells.setdefault(f"c{in_flight}", []).append(cell)


@asynccontextmanager
async def connected(transport: Transport) -> AsyncIterator[load.Call]:
    """Serves, and yields the call to make: the service and the stub of `bench.peers.shoal_http`."""
    registry = MemoryRegistry()
    service = shoal.Service(
        "greeter", registry=registry, transport=transport, address="127.0.0.1:0"
    )
    service.handle(Greeter())
    async with service, shoal.connect(registry=registry, transport=transport) as client:
        greeter = shoal.stub(Greeter, "greeter", client)

        async def call(name: str) -> str:
            return (await greeter.hello(load.HelloRequest(name))).greeting

        yield call


def ratios(calls: _report.Calls) -> dict[str, dict[str, float]]:
    """Divides the CPU of each call by that of one over memory."""
    base = calls.get(BASE, {})
    result: dict[str, dict[str, float]] = {}
    for name, cells in calls.items():
        for key, cell in cells.items():
            cost, unit = cell["cpu_us"], base.get(key, {}).get("cpu_us")
            if cost is not None and unit:
                result.setdefault(name, {})[key] = round(cost / unit, 2)
    return result


def table(calls: _report.Calls) -> str:
    """Returns the results as text."""
    header = f"{'cpu of a call':16}" + "".join(
        f"{f'c{number}: us':>12}{'x ' + BASE:>10}{'calls/s':>10}{'spread':>8}"
        for number in IN_FLIGHT
    )
    lines = [header, "-" * len(header)]
    over = ratios(calls)
    for name, cells in calls.items():
        line = f"{name:16}"
        for key, cell in cells.items():
            line += (
                _report.number(cell["cpu_us"], 12, 1)
                + _report.number(over.get(name, {}).get(key), 10, 2)
                + _report.number(cell["rps"], 10, 0)
                + f"{cell['spread'] or 0.0:8.0%}"
            )
        lines.append(line)
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
