"""Streams of which only the client's direction has ended, with servers that end them in silence."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

import shoal
from shoal import wire
from shoal.errors import ConnectionClosed
from shoal.message import Message
from shoal.transport import Socket
from shoal.transport.memory import MemoryTransport


@dataclass
class Item:
    n: int = 0


async def _end(socket: Socket) -> None:
    """Receive until the client says that no more items come."""
    while wire.error_in((await socket.recv()).header) != wire.EOS:
        pass


async def _answer(socket: Socket) -> None:
    """Answer a question as a Go Micro server does that has forgotten the stream."""
    question = await socket.recv()
    assert question.header["Micro-Stream"]
    text = f"unsupported Content-Type: {question.header['Content-Type']}"
    await socket.send(Message({"Content-Type": "text/plain"}, text.encode()))


async def _item(socket: Socket, n: int) -> None:
    await socket.send(Message({"Content-Type": "application/json"}, b'{"n":%d}' % n))


async def _received(serve: Callable[[Socket], Coroutine[Any, Any, None]]) -> list[int]:
    """Return the items that a client gets which sends nothing but its end."""
    transport = MemoryTransport()
    listener = await transport.listen("127.0.0.1:0", serve)
    try:
        async with shoal.connect(transport=transport, registry="memory") as client:
            request = shoal.Request("x", "X.Y", None, Item)
            async with (
                asyncio.timeout(10),
                client.stream(request, address=listener.address) as stream,
            ):
                await stream.close_send()
                return [item.n async for item in stream]
    finally:
        await listener.close()


async def test_a_server_that_forgot_the_stream_has_ended_it() -> None:
    async def serve(socket: Socket) -> None:
        await _end(socket)
        await _item(socket, 1)
        await _answer(socket)
        await asyncio.Event().wait()

    assert await _received(serve) == [1]


async def test_items_that_the_answer_overtook_are_received() -> None:
    async def serve(socket: Socket) -> None:
        await _end(socket)
        await _answer(socket)
        await _item(socket, 1)
        await _item(socket, 2)
        await _answer(socket)
        await asyncio.Event().wait()

    assert await _received(serve) == [1, 2]


async def test_a_silent_server_is_waited_for() -> None:
    async def serve(socket: Socket) -> None:
        await _end(socket)
        for _ in range(3):
            await socket.recv()
        await _item(socket, 3)
        await socket.send(Message({"Micro-Error": wire.EOS}))

    assert await _received(serve) == [3]


async def test_a_connection_that_closes_is_no_end() -> None:
    async def serve(socket: Socket) -> None:
        await _end(socket)
        await socket.close()

    with pytest.raises(ConnectionClosed):
        await _received(serve)


async def test_text_that_answers_nothing_is_an_error() -> None:
    async def serve(socket: Socket) -> None:
        await _end(socket)
        await socket.send(Message({"Content-Type": "text/plain"}, b"out of order"))

    with pytest.raises(shoal.BadRequest, match="out of order"):
        await _received(serve)
