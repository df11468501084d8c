"""Errors and ends in the envelopes of legacy formats, whose readers want one in every reply."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from shoal import wire
from shoal.message import Message
from shoal.testing import Network


class Counter:
    async def up(self, n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i


RPC = "application/json-rpc"


@pytest.mark.parametrize(
    ("header", "body"),
    [
        (wire.request_header("counter", "Counter.Down", RPC), b'{"params":[1],"id":"1"}'),
        # Without one mucp header the content type means the envelope.
        ({"Content-Type": wire.JSON}, b'{"params":[1],"id":"1","method":"Counter.Down"}'),
    ],
)
async def test_an_error_before_the_handler_is_in_the_envelope(
    header: dict[str, str], body: bytes
) -> None:
    async with asyncio.timeout(10), Network() as network:
        service = await network.serve(Counter())
        socket = await service.transport.dial(service.server.address)
        await socket.send(Message(dict(header), body))
        reply = await socket.recv()
        await socket.close()
    answer = json.loads(reply.body)
    assert answer["result"] is None
    assert "can't find method Down" in answer["error"]
    assert answer["error"] == reply.header["Micro-Error"]


async def test_the_end_of_a_stream_is_in_the_envelope() -> None:
    header = {**wire.request_header("counter", "Counter.Up", RPC), "Micro-Stream": "7"}
    item = b'{"params":[1],"id":"7","method":"Counter.Up"}'
    async with asyncio.timeout(10), Network() as network:
        service = await network.serve(Counter())
        socket = await service.transport.dial(service.server.address)
        for body in (b"", item):
            await socket.send(Message(dict(header), body))
        first, last = await socket.recv(), await socket.recv()
        await socket.close()
    assert json.loads(first.body)["result"] == 0
    assert json.loads(last.body)["error"] == last.header["Micro-Error"] == wire.EOS
