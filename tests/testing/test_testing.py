"""The kit that users test with."""

import asyncio

import pytest

import shoal
from shoal.testing import FakeClock, Network, serve


class Greeter:
    async def hello(self, request: dict[str, str]) -> str:
        if not request["name"]:
            raise shoal.BadRequest("a name is needed")
        return f"Hello {request['name']}"

    async def slow(self, request: dict[str, str]) -> str:
        await asyncio.sleep(3600)
        return "at last"


class Mail:
    async def send(self, request: dict[str, str]) -> bool:
        return True


async def test_serving_in_five_lines() -> None:
    async with serve(Greeter(), Mail()) as client:
        greeter = shoal.stub(Greeter, "greeter", client)
        assert await greeter.hello({"name": "John"}) == "Hello John"
        assert await shoal.stub(Mail, "mail", client).send({})
        with pytest.raises(shoal.BadRequest):
            await greeter.hello({"name": ""})
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_network_carries_events() -> None:
    got: asyncio.Queue[str] = asyncio.Queue()

    async def take(event: str) -> None:
        got.put_nowait(event)

    async with Network() as network:
        service = network.service("mail")
        service.subscribe("news", take)
        await network.start(service)
        await network.client.publish("news", "hello")
        async with asyncio.timeout(10):
            assert await got.get() == "hello"


async def test_a_fake_clock_drives_deadlines_and_sleeps() -> None:
    async with FakeClock() as clock, serve(Greeter()) as client:
        greeter = shoal.stub(Greeter, "greeter", client, timeout=1000)
        call = asyncio.ensure_future(greeter.slow({}))
        await clock.advance(999)
        assert not call.done()
        await clock.advance(2)
        with pytest.raises(shoal.Timeout):
            await call
        patient = shoal.stub(Greeter, "greeter", client, timeout=10_000)
        call = asyncio.ensure_future(patient.slow({}))
        await clock.advance(3601)
        assert await call == "at last"


async def test_a_fake_clock_stands_still_and_goes_only_forward() -> None:
    loop = asyncio.get_running_loop()
    async with FakeClock() as clock:
        before = loop.time()
        await asyncio.sleep(0)
        assert loop.time() == before == clock.now
        order: list[int] = []
        loop.call_later(2, order.append, 2)
        loop.call_later(1, order.append, 1)
        await clock.advance(5)
        assert order == [1, 2]
        assert clock.now == before + 5
        with pytest.raises(ValueError, match="back"):
            await clock.advance(-1)
    assert loop.time() != before + 5 or loop.time() > before
