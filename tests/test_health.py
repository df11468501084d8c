"""Parts say whether they are well, and what they hold, in one form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import shoal
from shoal.health import NUMBERS, Gauge, Readiness, Reason, gauges, problems
from shoal.limits import Breaker, Bulkhead, RateLimit
from shoal.middleware import Middleware
from shoal.testing import Network, serve


class Ill:
    error = ValueError("no route")


class Silent:
    error = ValueError()


class Chatty:
    """An attribute of that name is no exception everywhere."""

    def error(self) -> str:
        return "it is a method"


class Well:
    error = None

    def gauges(self) -> Iterator[Gauge]:
        yield Gauge("server_errors", 3, {"node": "a", "zone": "b"})


def test_readiness_is_true_without_a_reason() -> None:
    assert Readiness()
    assert str(Readiness()) == "ready"
    not_ready = Readiness((Reason("broker", "gone"), Reason("registry", "late")))
    assert not not_ready
    assert str(not_ready) == "broker: gone; registry: late"


def test_a_part_is_ill_when_it_keeps_an_error() -> None:
    assert list(problems("registry", Ill())) == [Reason("registry", "no route")]
    assert list(problems("registry", Silent())) == [Reason("registry", "ValueError")]
    for well in (Well(), Chatty(), object()):
        assert not list(problems("registry", well))


def test_numbers_are_read_from_the_parts_that_have_some() -> None:
    (gauge,) = gauges(object(), Well())
    assert str(gauge) == "server_errors{node=a,zone=b}"
    assert str(Gauge("ready", 1)) == "ready"


async def test_every_number_of_a_service_is_explained() -> None:
    class Greeter:
        async def hello(self) -> str:
            return "Hello"

    async with Network() as network:
        limits: list[Middleware] = [RateLimit(1000), Bulkhead(10), Breaker()]
        service = await network.serve(Greeter(), middleware=limits)
        await service.client.call(shoal.Request("greeter", "Greeter.Hello", None, str))
        told = {gauge.name for gauge in gauges(service.server)}
    assert told <= set(NUMBERS)
    assert {"limit_refused", "limit_running", "limit_open"} <= told
    assert {"client_retry_budget", "selector_nodes", "server_requests", "part_well"} <= told


def test_every_number_is_on_the_page() -> None:
    page = (Path(__file__).parents[1] / "docs" / "telemetry.md").read_text(encoding="utf-8")
    assert not [name for name in NUMBERS if f"`{name}`" not in page]


# What tools are told


async def test_debug_tells_the_state_to_who_asks_for_it() -> None:
    class Greeter:
        async def hello(self) -> str:
            return "Hello"

    async with serve(Greeter()) as client:

        async def stats(request: dict[str, Any]) -> dict[str, Any]:
            asked = shoal.Request("greeter", "Debug.Stats", request, dict[str, Any])
            return await client.call(asked)

        assert "state" not in await stats({})  # a field Go's JSON would refuse
        told = await stats({"state": True})
    assert told["ready"] == "ready"
    assert told["state"]["part_well{part=registration}"] == "1"
    assert told["requests"] == 2


async def test_debug_says_why_a_service_is_not_ready() -> None:
    class Greeter:
        async def hello(self) -> str:
            return "Hello"

    async with Network() as network:
        service = await network.serve(Greeter())
        asked = shoal.Request("greeter", "Debug.Health", {}, dict[str, str])
        assert await network.client.call(asked) == {"status": "ok"}
        service.broker.error = ConnectionError("refused")  # type: ignore[attr-defined]  # as plugins do
        told = await network.client.call(asked)
        assert told == {"status": "not ready: broker: memory: refused"}
        assert [str(reason) for reason in service.ready.reasons] == ["broker: memory: refused"]
        service.broker.error = None  # type: ignore[attr-defined]  # as plugins do
        assert service.ready
    assert str(service.ready) == "service: greeter does not run"
