"""What a running service tells probes, also while its event loop is blocked."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import pytest

import shoal
from shoal.testing import Network


class Greeter:
    async def hello(self) -> str:
        return "Hello"

    async def block(self, seconds: float) -> str:
        time.sleep(seconds)  # noqa: ASYNC251  # what must not be done
        return "done"


def get(address: str, path: str) -> tuple[int, Any]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=20) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


async def probe(service: shoal.Service, path: str) -> tuple[int, Any]:
    return await asyncio.to_thread(get, service.health_address, path)


def watchers() -> list[threading.Thread]:
    return [one for one in threading.enumerate() if one.name in ("watchdog", "health")]


async def test_nothing_listens_and_nothing_watches_unless_asked() -> None:
    async with Network() as network:
        service = await network.serve(Greeter())
        assert service.health_address == ""
        assert not watchers()  # the network of a test has no watchdog


async def test_probes_of_a_service_that_is_well_and_of_one_that_is_not() -> None:
    async with Network() as network:
        service = await network.serve(Greeter(), health=":0", watchdog=5.0)
        assert await probe(service, "/healthz") == (200, {"status": "ok"})
        assert await probe(service, "/readyz") == (200, {"status": "ready"})
        service.registry.error = OSError("refused")  # type: ignore[attr-defined]  # as plugins do
        code, told = await probe(service, "/readyz")
        assert code == 503
        assert told == {
            "status": "not ready",
            "reasons": [{"part": "registry", "text": "memory: refused"}],
        }
        assert await probe(service, "/healthz") == (200, {"status": "ok"})
        assert len(watchers()) == 2
    assert not watchers()


async def test_probes_are_answered_while_the_loop_is_blocked() -> None:
    async with Network() as network:
        settings: Any = {"health": ":0", "watchdog": 0.1, "health_limit": 0.6}
        service = await network.serve(Greeter(), **settings)
        told: list[tuple[int, Any]] = []
        stuck = threading.Event()

        def look() -> None:
            address = service.health_address
            while not stuck.is_set():
                told.append(get(address, "/readyz"))
                told.append(get(address, "/healthz"))
                time.sleep(0.02)

        thread = threading.Thread(target=look)
        thread.start()
        try:
            asked = shoal.Request("greeter", "Greeter.Block", 1.5, str)
            assert await service.client.call(asked) == "done"
        finally:
            stuck.set()
            await asyncio.to_thread(thread.join)
        async with asyncio.timeout(20):
            while (await probe(service, "/readyz"))[0] != 200:  # noqa: ASYNC110  # from outside
                await asyncio.sleep(0.05)
        blocked = [one for one in told if one[0] == 503]
        reasons = [text["reasons"][0] for _, text in blocked if "reasons" in text]
        assert any("test_health.py" in one["text"] and one["part"] == "loop" for one in reasons)
        assert any(text["status"] == "blocked" for _, text in blocked)
        assert (200, {"status": "ok"}) in told  # for less than the limit it lives


async def test_it_is_not_ready_while_it_stops() -> None:
    told: list[str] = []

    class Slow:
        def __init__(self) -> None:
            self.running = asyncio.Event()

        async def hello(self) -> str:
            self.running.set()
            await asyncio.sleep(0.3)
            return "Hello"

    async with Network() as network:
        service = network.service("slow", health=":0", server_linger=0.1)
        slow = Slow()
        service.handle(slow)
        async with service:
            asked = shoal.Request("slow", "Slow.Hello", None, str)
            call = asyncio.create_task(network.client.call(asked))
            async with asyncio.timeout(20):
                await slow.running.wait()
            stopping = asyncio.create_task(service.server.stop())
            await asyncio.sleep(0)
            told.append(str(service.ready))
            assert (await probe(service, "/readyz"))[0] == 503
            assert (await probe(service, "/healthz"))[0] == 200
            await asyncio.gather(call, stopping)
    assert "is stopping" in told[0]


async def test_a_service_whose_health_port_is_taken_does_not_start() -> None:
    async with Network() as network:
        first = await network.serve(Greeter(), health=":0")
        second = network.service("second", health=first.health_address)
        with pytest.raises(shoal.Unavailable, match="health: cannot listen"):
            await second.__aenter__()
        assert await network.client.call(shoal.Request("greeter", "Greeter.Hello", None, str))


async def test_one_watchdog_is_enough_for_a_group(caplog: pytest.LogCaptureFixture) -> None:
    async with Network() as network:
        one = network.service("one", watchdog=5.0)
        two = network.service("two", watchdog=5.0)
        async with shoal.Group(one, two):
            assert len(watchers()) == 1
        assert not watchers()


async def test_metrics_nobody_can_ask_for_are_told(caplog: pytest.LogCaptureFixture) -> None:
    async with Network() as network:
        await network.serve(Greeter(), telemetry="prometheus")
    warned = [one.getMessage() for one in caplog.records if one.levelno == logging.WARNING]
    assert any("health_address says where" in text for text in warned)
