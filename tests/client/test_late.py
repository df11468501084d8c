"""Streams whose time is over, wherever their user is just then."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

import shoal
from shoal.testing import FakeClock, Network


class Items:
    """Streams that do not end."""

    def __init__(self) -> None:
        self.ended = 0

    async def count(self) -> AsyncIterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
                await asyncio.sleep(0.1)
        finally:
            self.ended += 1

    async def swallow(self, items: AsyncIterator[int]) -> int:
        try:
            return len([item async for item in items])
        finally:
            self.ended += 1


async def test_a_late_stream_of_a_stub_cancels_nothing_of_its_user_s() -> None:
    async with FakeClock() as clock, Network() as network:
        items = Items()
        await network.serve(items)
        stub = shoal.stub(Items, "items", network.client, timeout=1.0)
        counted = []

        async def use() -> str:
            with pytest.raises(shoal.Timeout, match=r"deadline of 1 s, after 1\.") as caught:
                async for number in stub.count():
                    counted.append(number)
                    if number == 5:
                        await asyncio.sleep(10)  # what users do with an item takes its time
            return str(caught.value)

        using = asyncio.ensure_future(use())
        await clock.advance(2)
        assert items.ended == 1  # nobody waits for the user
        assert not using.done()
        await clock.advance(10)
        assert "Items.Count" in await using
        assert counted == [0, 1, 2, 3, 4, 5]


async def test_sending_and_receiving_tell_that_the_time_is_over() -> None:
    async with FakeClock() as clock, Network() as network:
        items = Items()
        await network.serve(items)
        request = shoal.Request("items", "Items.Swallow", None, int)

        async def late() -> None:
            async with network.client.stream(request, timeout=1.0) as stream:
                await stream.send(1)
                await asyncio.sleep(2)
                with pytest.raises(shoal.Timeout):
                    await stream.send(2)
                with pytest.raises(shoal.Timeout):
                    await stream.recv()

        async def waiting() -> None:
            with pytest.raises(shoal.Timeout), shoal.deadline(1.0):
                async with network.client.stream(request) as stream:
                    await stream.recv()

        users = [asyncio.ensure_future(late()), asyncio.ensure_future(waiting())]
        await clock.advance(5)
        await asyncio.gather(*users)
        assert items.ended == 2


async def test_one_that_ends_in_time_leaves_no_timer() -> None:
    async with FakeClock(), Network() as network:
        items = Items()
        await network.serve(items)
        stub = shoal.stub(Items, "items", network.client, timeout=3600.0)

        async def one_two() -> AsyncIterator[int]:
            yield 1
            yield 2

        assert await stub.swallow(one_two()) == 2
        timers = asyncio.get_running_loop()._scheduled  # type: ignore[attr-defined]  # BaseEventLoop's
        assert not [one for one in timers if "_expire" in repr(one) and not one.cancelled()]
