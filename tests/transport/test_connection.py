"""What every connection does whatever its framing: closing, waiting, being told."""

from __future__ import annotations

import asyncio
import socket as tcp
import struct

import pytest

from shoal.errors import ConnectionClosed
from shoal.message import Message
from shoal.transport import Socket
from shoal.transport.http import HttpTransport
from tests.transport.wire import (
    PATIENCE,
    client_socket,
    ended,
    feed,
    raw,
    server_socket,
    serving,
    until,
)

REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi"


async def test_a_peer_is_paused_by_count_and_goes_on() -> None:
    socket, wire = server_socket()
    feed(socket, REQUEST * 100)
    assert not wire.reading
    assert "paused, 100 unread" in repr(socket)
    for _ in range(91):
        await socket.recv()
        assert not wire.reading
    await socket.recv()
    assert wire.reading
    ended(socket)


async def test_a_peer_is_paused_by_size() -> None:
    socket, wire = server_socket(1000)
    for _ in range(2):
        assert wire.reading
        feed(socket, b"POST / HTTP/1.1\r\nContent-Length: 900\r\n\r\n" + bytes(900))
    assert not wire.reading
    await socket.recv()
    assert not wire.reading
    await socket.recv()
    assert wire.reading
    ended(socket)


async def test_sending_waits_while_writing_is_paused() -> None:
    socket, wire = client_socket()
    socket.pause_writing()
    sending = [asyncio.create_task(socket.send(Message({"N": str(n)}))) for n in range(3)]
    await asyncio.sleep(0.01)
    assert wire.written == b""
    sending[0].cancel()
    await asyncio.sleep(0)
    assert not sending[1].done()
    socket.resume_writing()
    await asyncio.gather(*sending, return_exceptions=True)
    assert b"N: 0" not in wire.written
    assert wire.written.index(b"N: 1") < wire.written.index(b"N: 2")
    ended(socket)


async def test_what_waits_to_be_sent_at_the_end_was_not() -> None:
    socket, wire = client_socket()
    socket.pause_writing()
    sending = asyncio.create_task(socket.send(Message({})))
    await asyncio.sleep(0)
    socket.connection_lost(ConnectionResetError(104, "Connection reset by peer"))
    with pytest.raises(ConnectionClosed) as caught:
        await sending
    assert caught.value.unsent
    with pytest.raises(ConnectionClosed, match="reset by peer"):
        await socket.recv()
    assert wire.written == b""


async def test_being_told_may_raise_without_harm() -> None:
    errors: list[str] = []
    asyncio.get_running_loop().set_exception_handler(
        lambda loop, context: errors.append(str(context.get("exception")))
    )

    async def accept(socket: Socket) -> None:
        def fail() -> None:
            raise RuntimeError("told")

        socket.on_lost(fail)
        await asyncio.Event().wait()

    async with serving(accept) as address, raw(address) as (_, writer):
        writer.write(REQUEST)
        writer.close()
        await until(lambda: errors)
    assert errors == ["told"]


async def test_a_peer_that_does_not_close_is_not_waited_for_for_long() -> None:
    done = asyncio.Event()

    async def accept(socket: Socket) -> None:
        await socket.recv()
        await socket.send(Message({}, bytes(8_000_000)))
        done.set()

    async with serving(accept) as address, raw(address) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of what is read from
        writer.write(REQUEST)
        async with asyncio.timeout(PATIENCE):
            await done.wait()
        # Leaving closes the listener, which must not wait for this peer for ever.


async def test_a_peer_that_takes_it_slowly_gets_all_of_it() -> None:
    body = bytes(range(256)) * 20_000

    async def accept(socket: Socket) -> None:
        await socket.recv()
        await socket.send(Message({}, body))

    async with serving(accept) as address, raw(address) as (reader, writer):
        writer.write(REQUEST)
        await reader.readuntil(b"\r\n\r\n")
        got = b""
        async with asyncio.timeout(4 * PATIENCE):
            while piece := await reader.read(400_000):
                got += piece
                await asyncio.sleep(0.1)
        assert got == body


async def test_closing_that_is_cancelled_still_closes() -> None:
    async with serving() as (host, port):
        socket = await HttpTransport().dial(f"{host}:{port}")
        closing = asyncio.create_task(socket.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        async with asyncio.timeout(PATIENCE):
            await socket.close()
        assert "lost" in repr(socket)


async def test_who_sends_without_an_end_hears_that_the_peer_is_gone() -> None:
    """Nothing that is awaited lets the loop go on, so it cannot tell by itself."""
    begun, told = asyncio.Event(), asyncio.Event()

    async def accept(socket: Socket) -> None:
        await socket.recv()
        begun.set()
        await asyncio.sleep(0)
        peer.setsockopt(tcp.SOL_SOCKET, tcp.SO_LINGER, struct.pack("ii", 1, 0))
        peer.close()
        with pytest.raises(ConnectionClosed):
            for _ in range(20_000):
                await socket.send(Message({}, bytes(1000)))
        told.set()

    async with serving(accept) as (host, port):
        peer = tcp.create_connection((host, port))
        peer.sendall(REQUEST)
        async with asyncio.timeout(PATIENCE):
            await begun.wait()
            await told.wait()
