"""promise_11: nothing grows while calls, streams, events and peers come and go."""

from __future__ import annotations

from bench.reliability import Report
from bench.soak import judge, soak
from shoal.client._pool import Pool
from shoal.transport import Socket

TITLE = "No growth: memory, sockets and tasks stay where they are"
WITHOUT = "closing connections whose call was given up"
SECONDS = 180.0
SHORTEST = 20.0


async def prove(report: Report, scale: float) -> None:
    """Work a fleet whose members die, and look at what everybody holds."""
    drop = Pool.drop
    kept: list[Socket] = []
    if report.without:
        Pool.drop = lambda self, socket: kept.append(socket)  # type: ignore[method-assign]  # off
    try:
        judge(report, await soak(max(SHORTEST, SECONDS * scale)))
    finally:
        Pool.drop = drop  # type: ignore[method-assign]  # on again
        for socket in kept:
            await socket.close()
