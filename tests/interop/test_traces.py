"""One trace across Python, Go and the broker, with Go Micro's own OpenTelemetry wrappers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import shoal
from shoal.telemetry._otel import OtelTelemetry

from .conftest import Facts, need
from .greeter import unique
from .matrix import GO_TO_PYTHON, PYTHON_TO_GO
from .peers import Running


@dataclass
class Name:
    name: str


@dataclass
class Greeting:
    greeting: str


class Back:
    """What Go calls: it publishes what a Go subscriber hears."""

    def __init__(self, service: shoal.Service, topic: str) -> None:
        self._service = service
        self._topic = topic

    async def finish(self, request: Name) -> Greeting:
        await self._service.client.publish(self._topic, request)
        return Greeting(f"Hello {request.name}")


@pytest.mark.parametrize("version", ["v5"], indirect=True)
async def test_one_trace_across_python_go_and_the_broker(fact: Facts) -> None:
    program = need("traced")
    what = "an OpenTelemetry trace goes on, in calls and events"
    with fact(what, PYTHON_TO_GO), fact(what, GO_TO_PYTHON):
        await _one_trace(program)


async def _one_trace(program: Path) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    tracing = OtelTelemetry("back", "http", tracers=provider).middleware
    name, relay, to_go, from_go = unique("back"), unique("relay"), unique("to-go"), unique("to-py")
    service = shoal.Service(name, address="127.0.0.1:0", middleware=[tracing])
    service.handle(Back(service, to_go))
    heard = asyncio.Event()

    async def hear(event: Name) -> None:
        heard.set()

    service.subscribe(from_go, hear)
    async with service:
        go = await Running.start(program, relay, name, service.server.address, to_go, from_go)
        try:
            address = (await go.event("ready", timeout=15))["address"]
            asked = shoal.Request(relay, "Relay.Pass", Name("John"), Greeting)
            async with asyncio.timeout(20):
                reply = await service.client.call(asked, address=address)
                await heard.wait()
            theirs = [await go.event("span", timeout=15) for _ in range(4)]
        finally:
            await go.stop()
    assert reply.greeting == "Hello John"
    ours = [_line(span) for span in spans.get_finished_spans()]
    both = ours + theirs
    assert len({span["trace"] for span in both}) == 1
    by_id = {span["span"]: span for span in both}
    chains = {tuple(_ancestry(span, by_id)) for span in both}
    called = ("Relay.Pass", f"{relay}.Relay.Pass", f"{name}.Back.Finish", "Back.Finish")
    assert (*called, f"publish {to_go}", f"Sub from {to_go}") in chains
    assert (*called[:2], f"Pub to {from_go}", f"process {from_go}") in chains


def _line(span: ReadableSpan) -> dict[str, str]:
    context = span.get_span_context()
    assert context is not None
    parent = "" if span.parent is None else f"{span.parent.span_id:016x}"
    return {
        "name": span.name,
        "trace": f"{context.trace_id:032x}",
        "span": f"{context.span_id:016x}",
        "parent": parent,
    }


def _ancestry(span: dict[str, str], by_id: dict[str, dict[str, str]]) -> list[str]:
    parent = by_id.get(span["parent"])
    return [*(_ancestry(parent, by_id) if parent else []), span["name"]]
