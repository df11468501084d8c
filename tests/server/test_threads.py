"""Tests of shoal/server/_threads.py."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

import shoal
from shoal.deadlines import Deadlines
from shoal.server._threads import Threads
from shoal.server.rpc import RpcServer
from shoal.testing import Network


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    limits = Deadlines(asyncio.get_running_loop())
    threads = Threads("work", 2, 100, limits)
    yield threads
    threads.close()
    limits.close()


async def test_it_is_full_while_all_threads_are_busy(threads: Threads) -> None:
    async with asyncio.timeout(30):
        go = threading.Event()
        running = [asyncio.ensure_future(threads.run(go.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        assert threads.full
        assert "2 of 2 busy" in repr(threads)
        turn = asyncio.ensure_future(threads.line.wait(20))
        await asyncio.sleep(0.01)
        assert not turn.done()
        go.set()
        assert await turn >= 0
        assert await asyncio.gather(*running) == [True, True]
        assert threads.busy == 0
        assert not threads.full


async def test_what_never_ran_leaves_its_place(threads: Threads) -> None:
    async with asyncio.timeout(30):
        go = threading.Event()
        running = [asyncio.ensure_future(threads.run(go.wait)) for _ in range(5)]
        await asyncio.sleep(0)
        assert threads.busy == 5
        for one in running[2:]:
            one.cancel()
        await asyncio.gather(*running[2:], return_exceptions=True)
        assert threads.busy == 2
        go.set()
        await asyncio.gather(*running[:2])
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 // 0)
        assert threads.busy == 0


async def test_who_would_wait_too_long_is_refused(threads: Threads) -> None:
    async with asyncio.timeout(30):
        go = threading.Event()
        running = [asyncio.ensure_future(threads.run(go.wait)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(shoal.TooManyRequests) as caught:
            await threads.line.wait(0.1)  # half of it, and nobody has left
        assert caught.value.retry_after
        go.set()
        await asyncio.gather(*running)


class Blocking:
    """Handlers that are no coroutines."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.lock = threading.Lock()
        self.running = self.most = 0

    def wait(self) -> str:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        self.go.wait(20)
        with self.lock:
            self.running -= 1
        return "done"

    async def awake(self) -> str:
        return "awake"


async def test_a_burst_waits_for_threads_and_others_need_none() -> None:
    async with asyncio.timeout(30), Network() as network:
        blocking = Blocking()
        service = await network.serve(blocking, server_threads=2)
        client = network.client
        stub = shoal.stub(Blocking, "blocking", client, timeout=20)
        request = shoal.Request("blocking", "Blocking.Wait", None, str)
        calls = [asyncio.ensure_future(client.call(request, timeout=20)) for _ in range(20)]
        with pytest.raises((shoal.TooManyRequests, shoal.Timeout)):
            await client.call(request, timeout=0.2)
        assert await stub.awake() == "awake"
        server = service.server
        assert isinstance(server, RpcServer)
        assert len(server.threads.line.waiting) >= 18
        blocking.go.set()
        assert await asyncio.gather(*calls) == ["done"] * 20
        assert blocking.most == 2
        assert server.threads.busy == 0
