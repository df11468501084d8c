"""Who connects when a server has all its connections open is told to try another."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import shoal
from shoal.plugins import load
from shoal.server import _door
from shoal.testing import Network

PATIENCE = 20.0


class Work:
    def __init__(self) -> None:
        self.begun = 0

    async def wait(self, seconds: float) -> float:
        self.begun += 1
        await asyncio.sleep(seconds)
        return seconds


@pytest.fixture(params=["memory", "http", "tcp"])
def own(request: pytest.FixtureRequest) -> dict[str, Any]:
    name: str = request.param
    return {} if name == "memory" else {"transport": load("transport", name)()}


def call(client: Any, seconds: float, **options: Any) -> asyncio.Future[float]:
    return asyncio.ensure_future(shoal.stub(Work, "work", client, **options).wait(seconds))


async def test_one_too_many_is_told_and_nothing_runs(
    own: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    async with asyncio.timeout(PATIENCE), Network() as network:
        work = Work()
        service = await network.serve(work, server_connections=2, **own)
        caller = network.service("caller", **own)
        await network.start(caller)
        address = service.server.address
        running = [call(caller.client, 3600, address=address) for _ in range(2)]
        while work.begun < 2:  # noqa: ASYNC110  # what is counted tells nobody
            await asyncio.sleep(0.01)
        for _ in range(5):
            with pytest.raises(shoal.Unavailable, match="has 2 connections open already") as caught:
                await call(caller.client, 0, address=address)
            assert caught.value.unsent
        assert work.begun == 2
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        while work.begun == 2:  # until connections are gone, those that were turned away too
            await asyncio.sleep(0.1)
            await asyncio.gather(call(caller.client, 0, address=address), return_exceptions=True)
    assert len([r for r in caplog.records if "turned away" in r.getMessage()]) == 1


async def test_a_call_goes_to_a_node_that_has_room(own: dict[str, Any]) -> None:
    async with asyncio.timeout(PATIENCE), Network() as network:
        works = [Work(), Work()]
        for work in works:
            await network.serve(work, server_connections=1, **own)
        caller = network.service("caller", **own)
        await network.start(caller)
        running = [call(caller.client, 0.2) for _ in range(2)]
        assert await asyncio.gather(*running) == [0.2, 0.2]
        assert [work.begun for work in works] == [1, 1]


async def test_who_asks_for_nothing_is_closed_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_door, "PATIENCE", 0.05)
    monkeypatch.setattr(_door, "AT_ONCE", 3)
    async with asyncio.timeout(PATIENCE), Network() as network:
        own: dict[str, Any] = {"transport": load("transport", "http")()}
        service = await network.serve(Work(), server_connections=1, **own)
        host, _, port = service.server.address.rpartition(":")
        opened = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
        for _, writer in opened:
            writer.write(b"POST / HTTP/1.1\r\n")
        ends = [reader.read() for reader, _ in opened[1:]]
        answers = await asyncio.gather(*ends, return_exceptions=True)
        assert all(answer == b"" or isinstance(answer, OSError) for answer in answers)
        for _, writer in opened:
            writer.close()
