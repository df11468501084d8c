"""Metrics for Prometheus, with its own names for OpenTelemetry's conventions."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

import shoal
from shoal.health import Gauge
from shoal.plugins import PluginError
from shoal.telemetry import _prometheus, make
from shoal.telemetry._prometheus import PrometheusTelemetry
from shoal.testing import Network


class Greeter:
    async def hello(self, name: str) -> str:
        if not name:
            raise shoal.BadRequest("a name is needed")
        return f"Hello {name}"

    async def count(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i


def samples(page: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def labelled(method: str, error: str = "", code: str = "") -> frozenset[tuple[str, str]]:
    return frozenset(
        {
            "rpc_method": method,
            "server_address": "greeter",
            "error_type": error,
            "rpc_response_status_code": code,
        }.items()
    )


async def test_calls_events_and_state_are_on_the_page() -> None:
    async with Network() as network:
        service = network.service("greeter", telemetry="prometheus", health=":0", watchdog=5.0)
        service.handle(Greeter())
        heard = asyncio.Event()

        async def hear(event: dict[str, str]) -> None:
            heard.set()

        service.subscribe("greeted", hear)
        await network.start(service)
        for _ in range(2):
            await service.client.call(shoal.Request("greeter", "Greeter.Hello", "John", str))
        with pytest.raises(shoal.BadRequest):
            await service.client.call(shoal.Request("greeter", "Greeter.Hello", "", str))
        counting = shoal.Request("greeter", "Greeter.Count", 3, int)
        async with service.client.stream(counting) as stream:
            assert [item async for item in stream] == [0, 1, 2]
        await service.client.publish("greeted", {"name": "John"})
        async with asyncio.timeout(20):
            await heard.wait()

        def scrape() -> str:
            with urllib.request.urlopen(f"http://{service.health_address}/metrics") as answer:
                assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                return str(answer.read().decode())

        found = samples(await asyncio.to_thread(scrape))
    for side in ("client", "server"):
        count = f"rpc_{side}_call_duration_seconds_count"
        assert found[count, labelled("Greeter.Hello")] == 2
        assert found[count, labelled("Greeter.Hello", "BadRequest", "400")] == 1
        assert found[count, labelled("Greeter.Count")] == 1
    event = {"messaging_destination_name": "greeted", "messaging_system": "memory"}
    topic = frozenset({**event, "error_type": ""}.items())
    assert found["messaging_client_operation_duration_seconds_count", topic] == 1
    assert found["shoal_ready", frozenset()] == 1
    assert found["shoal_selector_nodes", frozenset({("service", "greeter")})] == 1
    assert found["shoal_client_connections_idle", frozenset()] >= 1
    assert found["shoal_part_well", frozenset({("part", "registration")})] == 1
    assert found["shoal_loop_blocked_seconds", frozenset()] == 0
    assert any(name == "process_resident_memory_bytes" for name, _ in found)


def test_numbers_of_one_name_are_one_family() -> None:
    telemetry = PrometheusTelemetry("greeter", "memory")
    telemetry.read(lambda: [Gauge("selector_nodes", n, {"service": f"s{n}"}) for n in (1, 2)])
    assert telemetry.page is not None
    page = telemetry.page().decode()
    assert page.count("# TYPE shoal_selector_nodes gauge") == 1
    assert 'shoal_selector_nodes{service="s2"} 2.0' in page
    telemetry.read(lambda: [Gauge("limit_refused", 2, {"limit": "RateLimit"})] * 2)
    assert 'shoal_limit_refused{limit="RateLimit"} 4.0' in telemetry.page().decode()
    telemetry.close()
    assert "shoal_selector_nodes" not in telemetry.page().decode()


async def test_names_beyond_number_are_counted_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_prometheus, "MOST", 2)
    telemetry = PrometheusTelemetry("greeter", "memory")

    async def end(call: shoal.Call) -> None:
        return None

    for topic in ("a", "b", "c", "d", "a"):
        await telemetry.middleware(shoal.Call("publisher", "", topic, None), end)
    assert telemetry.page is not None
    found = samples(telemetry.page().decode())
    counted = {
        dict(labels)["messaging_destination_name"]: value
        for (name, labels), value in found.items()
        if name == "messaging_client_operation_duration_seconds_count"
    }
    assert counted == {"a": 2, "b": 1, "_OTHER": 2}


def test_what_is_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert make("", "greeter", "memory") == []
    for name, library in (("otel", "opentelemetry"), ("prometheus", "prometheus_client")):
        with monkeypatch.context() as patch:
            patch.setitem(__import__("sys").modules, library, None)
            patch.delitem(__import__("sys").modules, f"shoal.telemetry._{name}", raising=False)
            with pytest.raises(PluginError, match=rf"pip install 'shoal\[{name}\]'"):
                make(name, "greeter", "memory")
