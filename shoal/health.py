"""Module health is how the parts of a service say whether they are well, and what they hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a service is not ready: the part that is not well, and a sentence."""

    part: str
    text: str

    def __str__(self) -> str:
        return f"{self.part}: {self.text}"


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether a service should get work: true if there is no reason against it."""

    reasons: tuple[Reason, ...] = ()

    def __bool__(self) -> bool:
        return not self.reasons

    def __str__(self) -> str:
        return "; ".join(map(str, self.reasons)) or "ready"


NUMBERS = {
    "ready": "whether the service should get work",
    "part_well": "whether a part of the service is well",
    "server_requests_running": "requests that run now",
    "server_requests_limit": "requests that may run at once",
    "server_requests_waiting": "requests that wait for their turn",
    "server_requests_refused": "requests refused for overload since the start",
    "server_threads_busy": "functions that run in a thread, or wait for one",
    "server_overloaded": "whether requests have to wait for their turn",
    "server_lateness_seconds": "how late the event loop was when it was last measured",
    "server_requests": "requests that came since the start",
    "server_errors": "requests that failed since the start",
    "client_connections_idle": "open connections that no call uses",
    "client_addresses": "addresses with idle connections",
    "client_retry_budget": "attempts that may be repeated now",
    "client_breakers_open": "nodes that an endpoint avoids because it fails there",
    "client_hedges": "second attempts beside slow ones since the start",
    "client_hedges_won": "second attempts that were faster than the first",
    "selector_nodes": "nodes that are known of a service",
    "selector_nodes_out": "nodes that get no calls after errors",
    "selector_calls_in_flight": "calls under way to a service",
    "selector_nodes_doubtful": "nodes of a service that answer although the registry knows nobody",
    "selector_stale": "whether the registry cannot tell of a service, so its last nodes count",
    "limit_refused": "calls a rate limit, bulkhead or breaker refused since the start",
    "limit_running": "calls inside a bulkhead",
    "limit_open": "endpoints a breaker does not call for now",
    "loop_blocked_seconds": "for how long the event loop has not turned",
    "loop_blockages": "times the event loop was blocked since the start",
}
"""What parts may tell in numbers, and what each means."""


@dataclass(frozen=True, slots=True)
class Gauge:
    """A number that is read when somebody asks: `shoal_<name>` in metrics, one of `NUMBERS`."""

    name: str
    value: float
    labels: Mapping[str, str] = field(default_factory=dict[str, str])

    def __str__(self) -> str:
        labels = ",".join(f"{name}={value}" for name, value in self.labels.items())
        return f"{self.name}{{{labels}}}" if labels else self.name


def problems(name: str, part: object) -> Iterator[Reason]:
    """Yield what a part says is wrong with it: an exception in `error` while it is not well.

    It may be called from any thread.
    """
    error = getattr(part, "error", None)
    if isinstance(error, Exception):
        yield Reason(name, str(error) or type(error).__name__)


def gauges(*parts: object) -> Iterator[Gauge]:
    """Yield the numbers of those parts that have some: they give them with a method `gauges`.

    It may be called from any thread.
    """
    for part in parts:
        read = getattr(part, "gauges", None)
        if read is not None:
            yield from read()
