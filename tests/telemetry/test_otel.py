"""Calls and events are spans of one trace, and are measured, by OpenTelemetry's conventions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import shoal
from shoal.client import Client
from shoal.health import NUMBERS, Gauge
from shoal.telemetry._otel import OtelTelemetry
from shoal.testing import Network


class Greeter:
    def __init__(self, client: Client) -> None:
        self._client = client

    async def hello(self, name: str) -> str:
        await self._client.publish("greeted", {"name": name})
        return f"Hello {name}"

    async def fail(self, code: int) -> str:
        if code == 500:
            raise ValueError("nobody foresaw it")
        raise shoal.NotFound("who?") if code == 404 else shoal.Unavailable("not now")

    async def wait(self) -> str:
        await asyncio.sleep(60)
        return "at last"

    async def count(self, n: int) -> AsyncIterator[str]:
        for _ in range(n):
            yield f"{trace.get_current_span().get_span_context().trace_id:032x}"

    async def first(self, items: AsyncIterator[int]) -> int:
        return await anext(items)


class Watched:
    """A network with one greeter, and what OpenTelemetry was told of it."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        tracers = TracerProvider()
        tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.telemetry = OtelTelemetry(
            "greeter", "memory", tracers=tracers, meters=MeterProvider([self.reader])
        )

    def spans(self, kind: SpanKind) -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.kind is kind]

    def points(self) -> dict[str, list[Any]]:
        data = self.reader.get_metrics_data()
        if data is None:
            return {}
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def ids(span: ReadableSpan) -> tuple[int, int, int]:
    context = span.get_span_context()
    assert context is not None
    parent = span.parent.span_id if span.parent is not None else 0
    return context.trace_id, context.span_id, parent


@pytest.fixture
async def network() -> AsyncIterator[tuple[Watched, shoal.Service]]:
    watched = Watched()
    async with Network() as network:
        service = network.service("greeter", middleware=[watched.telemetry.middleware])
        service.handle(Greeter(service.client))
        heard: list[str] = []

        async def hear(event: dict[str, str]) -> None:
            heard.append(event["name"])

        service.subscribe("greeted", hear)
        await network.start(service)
        yield watched, service


def asked(endpoint: str, message: Any, reply: Any = str) -> shoal.Request[Any]:
    return shoal.Request("greeter", f"Greeter.{endpoint}", message, reply)


async def test_a_call_and_the_event_it_causes_are_one_trace(
    network: tuple[Watched, shoal.Service],
) -> None:
    watched, service = network
    async with asyncio.timeout(20):
        assert await service.client.call(asked("Hello", "John")) == "Hello John"
        while not watched.spans(SpanKind.CONSUMER):  # noqa: ASYNC110  # it keeps a list
            await asyncio.sleep(0.01)
    kinds = (SpanKind.CLIENT, SpanKind.SERVER, SpanKind.PRODUCER, SpanKind.CONSUMER)
    spans = [watched.spans(kind)[0] for kind in kinds]
    assert [span.name for span in spans] == [
        "Greeter.Hello",
        "Greeter.Hello",
        "publish greeted",
        "process greeted",
    ]
    before = 0
    for span in spans:
        found, own, parent = ids(span)
        assert found == ids(spans[0])[0]
        assert parent == before
        before = own
    assert attributes(spans[0]) == {
        "rpc.system.name": "go_micro",
        "rpc.method": "Greeter.Hello",
        "server.address": "greeter",
    }
    assert attributes(spans[3]) == {
        "messaging.system": "memory",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "greeted",
    }


async def test_an_error_names_its_kind_and_whose_fault_it_is(
    network: tuple[Watched, shoal.Service],
) -> None:
    watched, service = network
    for code in (404, 503):
        with pytest.raises(shoal.Error):
            await service.client.call(asked("Fail", code))
    statuses = {
        kind: [span.status.status_code for span in watched.spans(kind)]
        for kind in (SpanKind.CLIENT, SpanKind.SERVER)
    }
    assert statuses == {
        SpanKind.CLIENT: [StatusCode.ERROR, StatusCode.ERROR],
        SpanKind.SERVER: [StatusCode.UNSET, StatusCode.ERROR],
    }
    assert attributes(watched.spans(SpanKind.SERVER)[0])["error.type"] == "NotFound"
    assert attributes(watched.spans(SpanKind.SERVER)[0])["rpc.response.status_code"] == "404"


async def test_what_nobody_foresaw_is_kept_with_its_traceback(
    network: tuple[Watched, shoal.Service],
) -> None:
    watched, service = network
    with pytest.raises(shoal.InternalServerError):
        await service.client.call(asked("Fail", 500))
    (span,) = watched.spans(SpanKind.SERVER)
    assert attributes(span)["error.type"] == "ValueError"
    assert attributes(span)["rpc.response.status_code"] == "500"
    (event,) = span.events
    assert "nobody foresaw it" in str(dict(event.attributes or {})["exception.stacktrace"])


async def test_a_call_that_is_cancelled_ends_its_spans(
    network: tuple[Watched, shoal.Service],
) -> None:
    watched, service = network
    with pytest.raises(shoal.Timeout):
        await service.client.call(asked("Wait", None), timeout=0.05)
    async with asyncio.timeout(20):
        while not watched.spans(SpanKind.SERVER):  # noqa: ASYNC110  # it keeps a list
            await asyncio.sleep(0.01)
    assert attributes(watched.spans(SpanKind.CLIENT)[0])["error.type"] == "Timeout"
    assert attributes(watched.spans(SpanKind.SERVER)[0])["error.type"] == "cancelled"


async def test_a_stream_is_a_span_from_its_begin_to_its_end(
    network: tuple[Watched, shoal.Service],
) -> None:
    watched, service = network
    async with service.client.stream(asked("Count", 3)) as stream:
        assert not watched.spans(SpanKind.CLIENT)
        seen = [item async for item in stream]
        assert not trace.get_current_span().get_span_context().is_valid
    (client,), (server,) = watched.spans(SpanKind.CLIENT), watched.spans(SpanKind.SERVER)
    assert seen == [f"{ids(client)[0]:032x}"] * 3  # the handler runs inside it to the end
    assert ids(server)[2] == ids(client)[1]
    async with service.client.stream(shoal.Request("greeter", "Greeter.First", None, int)) as up:
        await up.send(7)
        assert await up.recv() == 7
    assert [span.name for span in watched.spans(SpanKind.SERVER)][1:] == ["Greeter.First"]


async def test_how_long_it_took_is_measured(network: tuple[Watched, shoal.Service]) -> None:
    watched, service = network
    await service.client.call(asked("Hello", "John"))
    with pytest.raises(shoal.NotFound):
        await service.client.call(asked("Fail", 404))
    points = watched.points()
    for side in ("client", "server"):
        well, failed = points[f"rpc.{side}.call.duration"]
        assert well.count == failed.count == 1
        assert 0 < well.sum < 20
        assert failed.attributes["error.type"] == "NotFound"
        assert failed.attributes["rpc.response.status_code"] == "404"
    assert points["messaging.client.operation.duration"][0].count == 1


async def test_numbers_are_gauges_until_it_is_closed() -> None:
    watched = Watched()
    watched.telemetry.read(lambda: [Gauge("selector_nodes", 3, {"service": "mail"})])
    (point,) = watched.points()["shoal.selector_nodes"]
    assert point.value == 3
    assert point.attributes == {"shoal.service": "greeter", "service": "mail"}
    assert set(NUMBERS) >= {"selector_nodes"}
    watched.telemetry.close()
    assert not watched.points().get("shoal.selector_nodes")


async def test_what_an_old_peer_refuses_is_not_sent(
    network: tuple[Watched, shoal.Service],
) -> None:
    """OpenTelemetry for Go 1.35 takes a trace's flags only if they say sampled or nothing."""
    watched, _ = network
    seen: list[str] = []

    async def end(call: Any) -> str:
        seen.append(call.header["Traceparent"])
        return ""

    call = shoal.Call("client", "greeter", "Greeter.Hello", "x")
    await watched.telemetry.middleware(call, end)
    assert seen[0].endswith("-01")
    (span,) = watched.spans(SpanKind.CLIENT)
    found, own, _ = ids(span)
    assert seen[0] == f"00-{found:032x}-{own:016x}-01"


def test_it_says_when_opentelemetry_is_not_set_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    OtelTelemetry("greeter", "memory")
    assert "opentelemetry-instrument" in caplog.text
