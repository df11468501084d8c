"""Module _prometheus keeps metrics for Prometheus, named as OpenTelemetry's conventions become."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from shoal.health import NUMBERS
from shoal.middleware import Call, Next
from shoal.telemetry import Read, Telemetry
from shoal.telemetry._observed import End, code_of, kind_of, observed

# What the conventions advise, in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

MOST = 2048  # combinations of labels that are told apart; topics can be of any number
OTHER = "_OTHER"  # the conventions' word for the others

_RPC = ("rpc_method", "server_address", "error_type", "rpc_response_status_code")
_EVENT = ("messaging_destination_name", "messaging_system", "error_type")


class PrometheusTelemetry(Telemetry):
    """Keeps metrics of its own, and gives them with those of prometheus_client's own registry."""

    def __init__(self, service: str, broker: str) -> None:
        self.middleware = self._observe
        self.page = self._page
        self._broker = broker
        self._registry = CollectorRegistry()
        self._state = _State()
        self._registry.register(self._state)
        self._children: dict[tuple[str, tuple[str, str, str, str]], Histogram] = {}
        self._durations = {
            "client": self._histogram("rpc_client_call_duration", "calls made", _RPC),
            "server": self._histogram("rpc_server_call_duration", "requests served", _RPC),
            "publisher": self._histogram(
                "messaging_client_operation_duration", "events published", _EVENT
            ),
            "subscriber": self._histogram("messaging_process_duration", "events handled", _EVENT),
        }

    def __repr__(self) -> str:
        return f"PrometheusTelemetry({', '.join(self._durations)})"

    def _histogram(self, name: str, what: str, labels: tuple[str, ...]) -> Histogram:
        return Histogram(
            f"{name}_seconds",
            f"How long {what} took.",
            labels,
            registry=self._registry,
            buckets=BUCKETS,
        )

    async def _observe(self, call: Call, next: Next) -> Any:
        """Measure how long a call or event takes."""
        return await observed(call, next, self._end(call))

    def _end(self, call: Call) -> End:
        begun = time.perf_counter()

        def end(error: BaseException | None) -> None:
            seconds = time.perf_counter() - begun
            if call.side in ("client", "server"):
                labels = (call.endpoint, call.service, kind_of(error), code_of(error, call))
            else:
                labels = (call.endpoint, self._broker, kind_of(error), "")
            child = self._children.get((call.side, labels))
            if child is None:
                child = self._child(call.side, labels)
            child.observe(seconds)

        return end

    def _child(self, side: str, labels: tuple[str, str, str, str]) -> Histogram:
        """Return what counts for some labels; names beyond number are counted as one."""
        room = len(self._children) < MOST
        endpoint, service, kind, code = labels if room else (OTHER, OTHER, *labels[2:])
        names = _RPC if side in ("client", "server") else _EVENT
        child = self._durations[side].labels(*(endpoint, service, kind, code)[: len(names)])
        if room:
            self._children[side, labels] = child
        return child

    def read(self, numbers: Read) -> None:
        self._state.numbers = numbers

    def _page(self) -> bytes:
        return generate_latest(self._registry) + generate_latest(REGISTRY)

    def close(self) -> None:
        self._state.numbers = None


class _State(Collector):
    """Reads the numbers of a service when somebody asks for the page."""

    def __init__(self) -> None:
        self.numbers: Read | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        families: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for gauge in self.numbers() if self.numbers is not None else ():
            found = families.setdefault(gauge.name, {})
            # Two of a kind, rate limits of the same endpoints say, must not be told twice.
            labels = tuple(gauge.labels.items())
            found[labels] = found.get(labels, 0.0) + gauge.value
        for name, found in families.items():
            meaning = NUMBERS.get(name, name)
            names = [label for label, _ in next(iter(found))]
            family = GaugeMetricFamily(f"shoal_{name}", meaning, labels=names)
            for labels, value in found.items():
                family.add_metric([text for _, text in labels], value)
            yield family
