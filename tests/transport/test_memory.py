"""The memory transport: the suite, and what is its own."""

from __future__ import annotations

import asyncio
import threading
from time import monotonic

import pytest

from shoal.errors import Unavailable
from shoal.message import Message
from shoal.testing.conformance.transport import TransportConformance
from shoal.transport import Socket, Transport
from shoal.transport.memory import MemoryTransport


class TestMemoryTransport(TransportConformance):
    _network: MemoryTransport | None = None

    def make(self) -> Transport:
        if self._network is None:
            self._network = MemoryTransport()
        return self._network


async def test_two_networks_do_not_know_each_other() -> None:
    async def accept(socket: Socket) -> None:
        await socket.recv()

    listener = await MemoryTransport().listen("127.0.0.1:0", accept)
    with pytest.raises(Unavailable):
        await MemoryTransport().dial(listener.address)
    await listener.close()


async def test_another_event_loop_cannot_dial() -> None:
    async def accept(socket: Socket) -> None:
        await socket.recv()

    transport = MemoryTransport()
    listener = await transport.listen("127.0.0.1:0", accept)
    errors: list[BaseException] = []

    def elsewhere() -> None:
        try:
            asyncio.run(_dial(transport, listener.address))
        except Unavailable as error:
            errors.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    await asyncio.to_thread(thread.join)
    assert "another event loop" in str(errors[0])
    await listener.close()


async def _dial(transport: MemoryTransport, address: str) -> None:
    await transport.dial(address)


async def test_a_body_is_handed_over_as_it_is() -> None:
    got: list[Message] = []
    done = asyncio.Event()

    async def accept(socket: Socket) -> None:
        got.append(await socket.recv())
        done.set()

    transport = MemoryTransport()
    listener = await transport.listen("127.0.0.1:0", accept)
    socket = await transport.dial(listener.address)
    body = bytes(20 * 1024 * 1024)
    await socket.send(Message({}, body))
    async with asyncio.timeout(5):
        await done.wait()
    assert got[0].body is body
    await socket.close()
    await listener.close()


async def test_who_sends_and_receives_again_and_again_gives_others_a_turn() -> None:
    async def accept(socket: Socket) -> None:
        def take(message: Message) -> bool:
            return socket.try_send(message)

        socket.on_message(take)
        while True:
            await socket.send(await socket.recv())

    transport = MemoryTransport()
    listener = await transport.listen("127.0.0.1:0", accept)
    socket = await transport.dial(listener.address)
    await asyncio.sleep(0)
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        loop.call_soon(turn)

    loop = asyncio.get_running_loop()
    loop.call_soon(turn)
    end = monotonic() + 10
    while turns < 3:
        assert socket.try_send(Message({}, b"x"))
        assert (await socket.recv()).body == b"x"
        assert monotonic() < end
    await socket.close()
    await listener.close()
