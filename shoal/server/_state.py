"""Module _state is what a server says of itself: whether it is ready, and its numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from shoal.health import Gauge, Readiness, Reason, gauges, problems
from shoal.plugins import plugin_name

if TYPE_CHECKING:
    from shoal.server.rpc import RpcServer


def readiness(server: RpcServer) -> Readiness:
    """Return whether a server should get work; any thread may ask."""
    return Readiness(tuple(_reasons(server)))


def _reasons(server: RpcServer) -> Iterator[Reason]:
    if not server.address:
        yield Reason("server", f"{server.name} does not listen")
        return
    if server.stopping:
        yield Reason("server", f"{server.name} is stopping")
    registration = server._registration
    if registration is None:
        yield Reason("registration", f"{server.name} is not registered")
    yield from problems("registration", registration)
    yield from problems("discovery", server._discovery)
    for name, part in (("registry", server._registry), ("broker", server._broker)):
        for reason in problems(name, part):
            yield Reason(name, f"{plugin_name(part)}: {reason.text}")
    for own in (*server.settings.beside, *server._handlers):
        yield from problems(type(own).__name__, own)


def numbers(server: RpcServer) -> Iterator[Gauge]:
    """Yield the numbers of a server and of the parts beside it; any thread may ask."""
    yield Gauge("ready", float(bool(readiness(server))))
    yield Gauge("server_requests_running", server.running)
    admission = getattr(server, "admission", None)  # which a server has once it has started
    if admission is None:
        yield Gauge("server_requests_limit", server.concurrency)
    else:
        yield Gauge("server_requests_limit", int(min(server.concurrency, admission.limit)))
        lines = (admission.line, server.threads.line)
        yield Gauge("server_requests_waiting", sum(len(line.waiting) for line in lines))
        yield Gauge("server_requests_refused", sum(line.refused for line in lines))
        yield Gauge("server_threads_busy", server.threads.busy)
        yield Gauge("server_overloaded", float(admission.overloaded))
        yield Gauge("server_lateness_seconds", max(0.0, admission.lateness))
    yield Gauge("server_requests", server.requests)
    yield Gauge("server_errors", server.errors)
    parts = {
        "registration": server._registration,
        "discovery": server._discovery,
        "registry": server._registry,
        "broker": server._broker,
    }
    for name, part in parts.items():
        well = part is not None and next(problems(name, part), None) is None
        yield Gauge("part_well", float(well), {"part": name})
    yield from gauges(*server.settings.beside)
