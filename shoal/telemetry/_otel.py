"""Module _otel tells OpenTelemetry of calls and events: spans and metrics by its conventions.

Semantic conventions 1.40 for RPC and messaging. Trace context travels in headers as Go Micro's
wrapper has it (wrapper/trace/opentelemetry): W3C's names, in title case.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.propagators.textmap import Getter, Setter
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from shoal.errors import Error
from shoal.health import NUMBERS
from shoal.message import canonical
from shoal.middleware import Call, Next
from shoal.telemetry import Read, Telemetry
from shoal.telemetry._observed import End, code_of, kind_of, observed

logger = logging.getLogger(__name__)

SYSTEM = "go_micro"  # rpc.system.name: whose protocol it is
# What the conventions advise, in seconds.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)

_KINDS = {
    "client": SpanKind.CLIENT,
    "server": SpanKind.SERVER,
    "publisher": SpanKind.PRODUCER,
    "subscriber": SpanKind.CONSUMER,
}
_DURATIONS = {
    "client": "rpc.client.call.duration",
    "server": "rpc.server.call.duration",
    "publisher": "messaging.client.operation.duration",
    "subscriber": "messaging.process.duration",
}


class OtelTelemetry(Telemetry):
    """Gives spans and metrics to OpenTelemetry's API: to the providers, or to the global ones."""

    def __init__(
        self,
        service: str,
        broker: str,
        *,
        tracers: TracerProvider | None = None,
        meters: MeterProvider | None = None,
    ) -> None:
        self.middleware = self._observe
        self.page = None
        self._service = service
        self._broker = broker
        self._tracer = trace.get_tracer("shoal", tracer_provider=tracers)
        self._meter = metrics.get_meter("shoal", meter_provider=meters)
        self._durations = {
            side: self._meter.create_histogram(
                name, "s", explicit_bucket_boundaries_advisory=BUCKETS
            )
            for side, name in _DURATIONS.items()
        }
        self._numbers: Read | None = None
        if tracers is None and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
            logger.warning(
                "OpenTelemetry is asked for and not set up, so spans go nowhere: start the program"
                " with opentelemetry-instrument, or call trace.set_tracer_provider before"
            )

    def __repr__(self) -> str:
        return f"OtelTelemetry({self._service!r})"

    async def _observe(self, call: Call, next: Next) -> Any:
        """Run a call or event inside a span, and measure how long it takes."""
        arrives = call.side in ("server", "subscriber")
        parent = propagate.extract(call.header, getter=_HEADERS) if arrives else None
        name, attributes = self._description(call)
        span = self._tracer.start_span(name, parent, _KINDS[call.side], attributes)
        here = trace.set_span_in_context(span, parent)
        if not arrives:
            propagate.inject(call.header, here, setter=_HEADERS)
        end = self._end(call, span, attributes)
        if call.side == "client" and call.stream:
            return await observed(call, next, end)  # who opens a stream goes on in its own span
        token = context.attach(here)
        try:
            return await observed(call, next, end)
        finally:
            # Streamed replies are made after this function's end, still in the request's own
            # context, which nobody else sees.
            if not call.stream:
                context.detach(token)

    def _description(self, call: Call) -> tuple[str, dict[str, str]]:
        if call.side in ("client", "server"):
            return call.endpoint, {
                "rpc.system.name": SYSTEM,
                "rpc.method": call.endpoint,
                "server.address": call.service,
            }
        operation = "publish" if call.side == "publisher" else "process"
        return f"{operation} {call.endpoint}", {
            "messaging.system": self._broker,
            "messaging.operation.name": operation,
            "messaging.operation.type": "send" if operation == "publish" else "process",
            "messaging.destination.name": call.endpoint,
        }

    def _end(self, call: Call, span: Span, attributes: Mapping[str, str]) -> End:
        begun, side = time.perf_counter(), call.side
        measured = dict(attributes)

        def end(error: BaseException | None) -> None:
            if kind := kind_of(error):
                measured["error.type"] = kind
                code = code_of(error, call)
                if code and side in ("client", "server"):
                    measured["rpc.response.status_code"] = code
                span.set_attributes(measured)
                if isinstance(error, Exception) and not isinstance(error, Error):
                    span.record_exception(error)
                # What the caller did wrong is no failure of the server.
                if side != "server" or not code.startswith("4"):
                    span.set_status(Status(StatusCode.ERROR, str(error)))
            self._durations[side].record(
                time.perf_counter() - begun, measured, trace.set_span_in_context(span)
            )
            span.end()

        return end

    def read(self, numbers: Read) -> None:
        self._numbers = numbers
        for name, meaning in NUMBERS.items():
            self._meter.create_observable_gauge(
                f"shoal.{name}", [partial(self._read, name)], description=meaning
            )

    def _read(self, name: str, options: CallbackOptions) -> Iterator[Observation]:
        numbers = self._numbers
        for gauge in numbers() if numbers is not None else ():
            if gauge.name == name:
                yield Observation(gauge.value, {"shoal.service": self._service, **gauge.labels})

    def close(self) -> None:
        self._numbers = None


_RANDOM = re.compile("00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-9a-f]")


class _Headers(Getter[Mapping[str, str]], Setter[dict[str, str]]):
    """Trace context among the headers of a call, whose names are in title case."""

    def get(self, carrier: Mapping[str, str], key: str) -> list[str] | None:
        found = carrier.get(canonical(key), carrier.get(key))
        return None if found is None else [found]

    def keys(self, carrier: Mapping[str, str]) -> list[str]:
        return [name.lower() for name in carrier]

    def set(self, carrier: dict[str, str], key: str, value: str) -> None:
        if key == "traceparent" and _RANDOM.fullmatch(value):
            # OpenTelemetry for Go 1.35, which Go Micro brings, refuses the flag for a random id.
            value = f"{value[:-1]}{int(value[-1], 16) & 1}"
        carrier[canonical(key)] = value


_HEADERS = _Headers()
