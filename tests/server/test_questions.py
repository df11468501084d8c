"""A client that asks whether a stream is over, as ours does Go Micro's servers, of our server."""

import asyncio
from collections.abc import AsyncIterator

from shoal import wire
from shoal.message import Message
from shoal.testing import Network


class Slow:
    def __init__(self) -> None:
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()

    async def total(self, items: AsyncIterator[int]) -> int:
        total = sum([item async for item in items])
        try:
            await self.release.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return total


async def test_questions_do_not_hold_the_connection_up_and_are_not_answered() -> None:
    handler = Slow()
    async with asyncio.timeout(10), Network() as network:
        service = await network.serve(handler)
        socket = await service.transport.dial(service.server.address)
        header = {"Micro-Id": "1", "Micro-Stream": "1"}
        shared = wire.request_header("slow", "Slow.Total", wire.JSON)
        for body in (b"", b"1", b"2"):
            await socket.send(Message(header, body, shared))
        await socket.send(Message({**header, "Micro-Error": wire.EOS}, b"", shared))
        for _ in range(100):
            await socket.send(Message({**header, **wire.END_QUESTION}, b"", shared))
        handler.release.set()
        assert (await socket.recv()).body.strip() == b"3"
        assert wire.error_in((await socket.recv()).header) == wire.EOS
        # A question that comes late is for a stream that has ended; the next message is not.
        await socket.send(Message({**header, **wire.END_QUESTION}, b"", shared))
        health = {"Micro-Endpoint": "Debug.Health", "Content-Type": wire.JSON, "Micro-Id": "2"}
        await socket.send(Message(health, b"{}"))
        assert b"ok" in (await socket.recv()).body
        await socket.close()
