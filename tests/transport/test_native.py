"""Shoal's own protocol: its bytes, and what sessions on one connection do to each other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from shoal.errors import BadRequest, ConnectionClosed, Error, TooLarge, Unavailable
from shoal.message import Header, Message
from shoal.transport import Listener, Socket
from shoal.transport._native_frames import (
    CLOSE,
    COST,
    DATA,
    DEFINE,
    GOAWAY,
    MAGIC,
    MESSAGE,
    METADATA,
    MORE,
    PING,
    PONG,
    PREFACE,
    WINDOW,
    Limits,
    frame,
)
from shoal.transport._native_session import NativeSession
from shoal.transport.http import HttpTransport
from shoal.transport.tcp import TcpTransport
from tests.transport.wire import PATIENCE, echo, raw, until

PEER = Limits(1 << 20).preface()

# What version 1 is, byte for byte. These never change: another format is another version.
FROZEN = {
    "preface": (
        Limits(4 << 20, window=1 << 18, sessions=1 << 14).preface(),
        "8953484f414c0d0a 01 000000 00040000 00400000 00004000",
    ),
    "DEFINE": (
        frame(DEFINE, 0, 16, number=1, payload=b"Micro-Id\nTimeoutContent-Type\ntext/plain"),
        "00000027 03 00 0001 00000000 00000010"
        + b"Micro-Id\nTimeoutContent-Type\ntext/plain".hex(),
    ),
    "MESSAGE": (
        frame(MESSAGE, 7, 4, number=1, payload=b"1\n50hello"),
        "00000009 01 00 0001 00000007 00000004" + b"1\n50hello".hex(),
    ),
    "the first piece": (
        frame(MESSAGE, 7, 0, flags=MORE, payload=b"\0\0\0\x05hel"),
        "00000007 01 01 0000 00000007 00000000 00000005" + b"hel".hex(),
    ),
    "the last piece": (
        frame(DATA, 7, payload=b"lo"),
        "00000002 02 00 0000 00000007 00000000" + b"lo".hex(),
    ),
    "WINDOW": (frame(WINDOW, 7, 131072), "00000000 04 00 0000 00000007 00020000"),
    "CLOSE": (
        frame(CLOSE, 7, number=413, payload=b"too large"),
        "00000009 05 00 019d 00000007 00000000" + b"too large".hex(),
    ),
    "PING": (frame(PING, 0, 9), "00000000 06 00 0000 00000000 00000009"),
    "PONG": (frame(PONG, 0, 9), "00000000 07 00 0000 00000000 00000009"),
    "GOAWAY": (
        frame(GOAWAY, 0, 12, number=400, payload=b"why"),
        "00000003 08 00 0190 00000000 0000000c" + b"why".hex(),
    ),
}


@pytest.mark.parametrize(("made", "known"), FROZEN.values(), ids=FROZEN)
def test_the_bytes_of_version_1(made: bytes, known: str) -> None:
    assert made == bytes.fromhex(known)


@asynccontextmanager
async def listening(
    accept: Callable[[Socket], Any] = echo, **settings: Any
) -> AsyncIterator[Listener]:
    """Listen for a block, and see that nothing is left of it."""
    before = asyncio.all_tasks()
    async with asyncio.timeout(4 * PATIENCE):
        listener = await TcpTransport(**settings).listen("127.0.0.1:0", accept)
        try:
            yield listener
        finally:
            await listener.close()
    assert asyncio.all_tasks() - before == set()


@asynccontextmanager
async def peer(listener: Listener) -> AsyncIterator[tuple[Any, Any]]:
    """Connect with bytes only, after the prefaces."""
    host, _, port = listener.address.rpartition(":")
    async with raw((host, int(port))) as (reader, writer):
        writer.write(PEER)
        assert (await soon(reader.readexactly(PREFACE.size))).startswith(MAGIC)
        yield reader, writer


async def soon(what: Awaitable[Any]) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await what


async def answer(reader: asyncio.StreamReader) -> tuple[int, int, int, int, bytes]:
    """Return type, number, session, count and payload of the next frame."""
    head = await soon(reader.readexactly(16))
    number, session = int.from_bytes(head[6:8], "big"), int.from_bytes(head[8:12], "big")
    payload = await soon(reader.readexactly(int.from_bytes(head[:4], "big")))
    return head[4], number, session, int.from_bytes(head[12:], "big"), payload


async def closed(reader: asyncio.StreamReader) -> bool:
    """Whether nothing but the end comes."""
    try:
        return bool(await soon(reader.read()) == b"")
    except ConnectionError:
        return True


# What goes over the wire


async def test_a_call_as_another_implementation_would_write_it() -> None:
    async with listening() as listener, peer(listener) as (reader, writer):
        writer.write(bytes.fromhex(FROZEN["DEFINE"][1]) + bytes.fromhex(FROZEN["MESSAGE"][1]))
        kind, number, _, count, payload = await answer(reader)
        assert (kind, number, payload[:count], payload[count:]) == (DEFINE, 1, b"Echo", b"")
        assert await answer(reader) == (MESSAGE, 1, 7, 3, b"yeshello")


@pytest.mark.parametrize("count", [1, 20, 39, 300])
async def test_all_of_many_small_messages_before_the_end_arrive(count: int) -> None:
    """Those that come together are not all taken in one turn of the loop."""
    came: list[bytes] = []
    done = asyncio.Event()

    async def accept(socket: Socket) -> None:
        with suppress(ConnectionClosed):
            while True:
                came.append((await socket.recv()).body)
        done.set()

    async with listening(accept) as listener, peer(listener) as (_, writer):
        writer.write(b"".join(frame(MESSAGE, 7, payload=b"%d" % n) for n in range(count)))
        writer.close()
        await soon(done.wait())
        assert came == [b"%d" % n for n in range(count)]


async def test_headers_are_told_once_and_as_often_as_they_are_new() -> None:
    shared = Header({"Micro-Service": "greeter"})
    transport = TcpTransport()
    async with listening() as listener:
        socket = await transport.dial(listener.address)
        for number in range(5000):  # more than there are numbers
            await socket.send(Message({f"Name-{number}": "x"}, b"%d" % number, shared))
            assert (await soon(socket.recv())).body == b"%d" % number
        await socket.close()


async def test_all_sockets_to_an_address_are_one_connection() -> None:
    peers = set()

    async def tell(socket: Socket) -> None:
        peers.add(socket.remote)
        await echo(socket)

    transport = TcpTransport()
    async with listening(tell) as listener:
        sockets = await asyncio.gather(*(transport.dial(listener.address) for _ in range(50)))
        for socket in sockets:
            await socket.send(Message({}, b"x"))
            await soon(socket.recv())
        assert len(peers) == 1
        await asyncio.gather(*(socket.close() for socket in sockets))
        socket = await transport.dial(listener.address)  # the last closed the connection
        await socket.send(Message({}, b"x"))
        await soon(socket.recv())
        assert len(peers) == 2
        await socket.close()


# Sessions beside each other


async def test_a_slow_stream_does_not_block_others() -> None:
    """One that is not received stops its own sender, whose memory is bounded."""
    slow: list[Socket] = []

    async def accept(socket: Socket) -> None:
        first = await socket.recv()
        if first.body == b"slow":
            slow.append(socket)
            await asyncio.Event().wait()
        await socket.send(first)
        await echo(socket)

    sent = 0

    async def flood() -> None:
        nonlocal sent
        while True:
            await stuck.send(Message({}, bytes(10_000)))
            sent += 1

    transport = TcpTransport()
    async with listening(accept) as listener:
        stuck, other = [await transport.dial(listener.address) for _ in range(2)]
        await stuck.send(Message({}, b"slow"))
        flooding = asyncio.create_task(flood())
        await until(lambda: slow)
        for number in range(300):
            await other.send(Message({}, b"%d" % number))
            assert (await soon(other.recv())).body == b"%d" % number
        before = sent
        for _ in range(50):
            await other.send(Message({}, b"x"))
            await soon(other.recv())
        assert sent == before
        assert sent * (10_000 + COST) <= 512 * 1024 + 20_000
        for _ in range(sent):
            assert len((await soon(slow[0].recv())).body) == 10_000
        await until(lambda: sent > before)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)
        await asyncio.gather(stuck.close(), other.close())


async def test_ten_thousand_sessions() -> None:
    transport = TcpTransport()
    async with listening() as listener:
        sockets = [await transport.dial(listener.address) for _ in range(10_000)]
        for _ in range(2):
            for number, socket in enumerate(sockets):
                await socket.send(Message({"N": str(number)}, b"%d" % number))
            for number, socket in enumerate(sockets):
                assert (await soon(socket.recv())).body == b"%d" % number
        await asyncio.gather(*(socket.close() for socket in sockets))


async def test_small_calls_go_on_beside_a_large_body() -> None:
    large = 64 * 1024 * 1024
    settings: dict[str, Any] = {"max_message": large}
    transport = TcpTransport(**settings)
    async with listening(**settings) as listener:
        slow, quick = [await transport.dial(listener.address) for _ in range(2)]
        await quick.send(Message({}, b"x"))
        await soon(quick.recv())
        sending = asyncio.create_task(slow.send(Message({}, bytes(large))))
        calls = 0
        while not sending.done():
            await quick.send(Message({}, b"x"))
            await soon(quick.recv())
            calls += 1
        assert calls > 10
        assert len((await soon(slow.recv())).body) == large
        await asyncio.gather(slow.close(), quick.close())


async def test_too_many_sessions_get_another_connection() -> None:
    transport = TcpTransport()
    async with listening() as listener:
        first = await transport.dial(listener.address)
        (link,) = transport._native._links.values()
        assert link.peer is not None
        link.peer = Limits(link.peer.max_message, sessions=2)
        others = [await transport.dial(listener.address) for _ in range(3)]
        for socket in (first, *others):
            await socket.send(Message({}, b"x"))
            await soon(socket.recv())
        assert len({socket.local for socket in (first, *others)}) == 2
        await asyncio.gather(*(socket.close() for socket in (first, *others)))


# Ends


async def test_closing_a_session_cancels_what_serves_it_and_nothing_else() -> None:
    gone = asyncio.Event()

    async def accept(socket: Socket) -> None:
        message = await socket.recv()
        await socket.send(message)
        if message.body == b"first":
            socket.on_lost(gone.set)
            await gone.wait()
        await echo(socket)

    transport = TcpTransport()
    async with listening(accept) as listener:
        first, second = [await transport.dial(listener.address) for _ in range(2)]
        for socket, body in ((first, b"first"), (second, b"second")):
            await socket.send(Message({}, body))
            await soon(socket.recv())
        await first.close()
        await soon(gone.wait())
        await second.send(Message({}, b"y"))
        assert (await soon(second.recv())).body == b"y"
        await second.close()


async def test_a_body_over_the_peer_s_limit_is_refused_with_nothing_sent() -> None:
    transport = TcpTransport()
    async with listening(max_message=100_000) as listener:
        socket = await transport.dial(listener.address)
        with pytest.raises(TooLarge):
            await socket.send(Message({}, bytes(100_001)))
        await socket.send(Message({}, b"x"))
        assert (await soon(socket.recv())).body == b"x"
        await socket.close()


@pytest.mark.parametrize("pieces", [False, True])
async def test_a_body_over_the_own_limit_ends_its_session_only(pieces: bool) -> None:
    seen: list[Error] = []

    async def accept(socket: Socket) -> None:
        try:
            await echo(socket)
        except TooLarge as error:
            seen.append(error)

    async with listening(accept, max_message=1000) as listener:
        async with peer(listener) as (reader, writer):
            if pieces:
                size = (2000).to_bytes(4, "big")
                writer.write(frame(MESSAGE, 1, flags=MORE, payload=size + bytes(500)))
            else:
                writer.write(frame(MESSAGE, 1, payload=bytes(1001)))
            assert (await answer(reader))[:3] == (CLOSE, 413, 1)
            writer.write(frame(MESSAGE, 2, payload=b"x"))
            assert (await answer(reader))[0] == DEFINE
            assert (await answer(reader))[2] == 2
        await until(lambda: seen)


async def test_a_listener_that_closes_says_so_and_what_it_did_not_take_is_unsent() -> None:
    async with listening() as listener:
        async with peer(listener) as (reader, writer):
            writer.write(frame(MESSAGE, 5, payload=b"x"))
            assert (await answer(reader))[0] == DEFINE
            assert (await answer(reader))[0] == MESSAGE
            closing = asyncio.create_task(listener.close())
            found = {(await answer(reader))[:4] for _ in range(2)}
            assert found == {(GOAWAY, 0, 0, 5), (CLOSE, 0, 5, 0)}
            assert await closed(reader)
            await closing


async def test_going_away_lets_sessions_finish_and_takes_no_new_ones() -> None:
    release = asyncio.Event()
    links: list[Any] = []

    async def slow(socket: Socket) -> None:
        assert isinstance(socket, NativeSession)
        links.append(socket._link)
        message = await socket.recv()
        await release.wait()
        await socket.send(message)
        await asyncio.Event().wait()

    transport = TcpTransport()
    async with listening(slow) as listener:
        first = await transport.dial(listener.address)
        await first.send(Message({}, b"first"))
        await until(lambda: links)
        late = await transport.dial(listener.address)
        links[0].leave()
        await late.send(Message({}, b"late"))  # under way while the peer leaves
        with pytest.raises(ConnectionClosed) as caught:
            await soon(late.recv())
        assert caught.value.unsent
        second = await transport.dial(listener.address)  # on a new connection
        await second.send(Message({}, b"second"))
        await until(lambda: len(links) == 2)
        assert links[0] is not links[1]
        release.set()
        assert (await soon(first.recv())).body == b"first"
        assert (await soon(second.recv())).body == b"second"
        await asyncio.gather(first.close(), second.close(), late.close())


# Peers that are silent, foreign or hostile


async def test_a_frozen_peer_is_noticed() -> None:
    pings: list[bytes] = []

    async def freeze(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(PEER)
        with suppress(OSError):
            while data := await reader.read(1000):
                pings.append(data)
        writer.close()

    server = await asyncio.start_server(freeze, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    socket = await TcpTransport(keep_alive=0.2).dial(f"{host}:{port}")
    await socket.send(Message({}, b"x"))
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with pytest.raises(ConnectionClosed, match="nothing"):
        await soon(socket.recv())
    assert loop.time() - begun >= 0.1
    assert frame(PING) in b"".join(pings)
    await socket.close()
    server.close()


async def test_a_quiet_peer_that_lives_is_kept() -> None:
    async with listening(keep_alive=0.05) as listener:
        socket = await TcpTransport(keep_alive=0.05).dial(listener.address)
        await socket.send(Message({}, b"x"))
        await soon(socket.recv())
        await asyncio.sleep(0.5)
        await socket.send(Message({}, b"y"))
        assert (await soon(socket.recv())).body == b"y"
        await socket.close()


async def test_a_question_is_answered() -> None:
    async with listening() as listener, peer(listener) as (reader, writer):
        writer.write(frame(PING, 0, 77))
        assert await answer(reader) == (PONG, 0, 0, 77, b"")


async def test_another_version_is_told_ours_and_closed(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with listening() as listener:
        host, _, port = listener.address.rpartition(":")
        async with raw((host, int(port))) as (reader, writer):
            writer.write(PREFACE.pack(MAGIC, 9, 1, 1, 1))
            got = await soon(reader.readexactly(PREFACE.size))
            assert PREFACE.unpack(got)[:2] == (MAGIC, 1)
            assert await closed(reader)
    assert "version 9" in caplog.text


STRANGE = {
    "another version": PREFACE.pack(MAGIC, 9, 1, 1, 1),
    "HTTP": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "the end": b"",
}


@asynccontextmanager
async def stranger(greeting: bytes) -> AsyncIterator[str]:
    """Be somebody who answers a preface with something else, and HTTP with HTTP."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (await reader.read(1)) == MAGIC[:1]:
            writer.write(greeting)
        else:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhttp")
        with suppress(OSError):
            await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    yield f"{host}:{port}"
    server.close()


@pytest.mark.parametrize("greeting", STRANGE.values(), ids=STRANGE)
async def test_who_is_no_such_peer_is_unavailable(greeting: bytes) -> None:
    async with stranger(greeting) as address:
        with pytest.raises(Unavailable, match=address):
            await soon(TcpTransport().dial(address))


@pytest.mark.parametrize("greeting", STRANGE.values(), ids=STRANGE)
async def test_a_node_that_announces_what_it_does_not_speak_gets_http(greeting: bytes) -> None:
    transport = HttpTransport()
    async with stranger(greeting) as address:
        for _ in range(2):
            socket = await soon(transport.dial(address, METADATA))
            await socket.send(Message({}, b"x"))
            assert (await soon(socket.recv())).body == b"http"
            await socket.close()
    assert list(transport._foreign) == [address]


@pytest.mark.parametrize(
    "metadata", [{}, {"shoal-native": "2"}, {"shoal-native": ""}, {"protocol": "mucp"}]
)
async def test_nodes_that_do_not_announce_it_get_http(metadata: Mapping[str, str]) -> None:
    async with stranger(b"never") as address:
        socket = await soon(HttpTransport().dial(address, metadata))
        await socket.send(Message({}, b"x"))
        assert (await soon(socket.recv())).body == b"http"
        await socket.close()


VIOLATIONS = {
    "an unknown type": frame(99),
    "type 0": frame(0),
    "a frame over the limit": bytes.fromhex("7fffffff0100000000000001 00000000"),
    "an unknown number": frame(MESSAGE, 1, number=5),
    "values longer than the frame": frame(MESSAGE, 1, 50, payload=b"x"),
    "values over the limit": frame(DEFINE, 0, 1, number=1, payload=b"a")
    + frame(MESSAGE, 1, 70_000, number=1, payload=b"x" * 70_000),
    "values of no names": frame(MESSAGE, 1, 1, payload=b"x"),
    "unknown flags": frame(MESSAGE, 1, flags=6),
    "a number out of order": frame(DEFINE, number=2),
    "number 0": frame(DEFINE, number=0),
    "a bad name": frame(DEFINE, 0, 3, number=1, payload=b"a b"),
    "names longer than the frame": frame(DEFINE, 0, 30, number=1, payload=b"a"),
    "a name without a value": frame(DEFINE, 0, 0, number=1, payload=b"A"),
    "not UTF-8": frame(DEFINE, 0, 0, number=1, payload=b"A\n\xff"),
    "too many names": frame(DEFINE, 0, 599, number=1, payload=b"\n".join([b"a"] * 300)),
    "two values for one name": frame(DEFINE, 0, 1, number=1, payload=b"a")
    + frame(MESSAGE, 1, 3, number=1, payload=b"1\n2"),
    "values that are not UTF-8": frame(DEFINE, 0, 1, number=1, payload=b"a")
    + frame(MESSAGE, 1, 1, number=1, payload=b"\xff"),
    "a piece of nothing": frame(MESSAGE, 1) + frame(DATA, 1, payload=b"x"),
    "a message inside another": frame(MESSAGE, 1, flags=MORE, payload=b"\0\0\0\x09abc") * 2,
    "pieces beyond the body": frame(MESSAGE, 1, flags=MORE, payload=b"\0\0\0\x09abc")
    + frame(DATA, 1, payload=b"0123456789"),
    "an empty piece": frame(MESSAGE, 1, flags=MORE, payload=b"\0\0\0\x09abc")
    + frame(DATA, 1, flags=MORE),
    "no body in pieces": frame(MESSAGE, 1, flags=MORE, payload=b"\0\0\0\0"),
    "endless credit": frame(MESSAGE, 1) + frame(WINDOW, 1, 2**32 - 1),
    "a long farewell": frame(CLOSE, 1, payload=bytes(2000)),
    "a definition over the limit": frame(DEFINE, 0, 0, number=1, payload=bytes(70_000)),
    "more than the window": frame(MESSAGE, 1, payload=bytes(60_000)) * 12,
}


@pytest.mark.parametrize("data", VIOLATIONS.values(), ids=VIOLATIONS)
async def test_what_no_peer_sends_ends_the_connection_with_a_reason(
    data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def deaf(socket: Socket) -> None:
        await asyncio.Event().wait()

    caplog.set_level(logging.INFO)
    async with listening(deaf) as listener:
        async with peer(listener) as (reader, writer):
            writer.write(data)
            kind, code, _, _, payload = await answer(reader)
            assert (kind, code) == (GOAWAY, 400)
            assert b"sent" in payload
            assert b"Traceback" not in payload
            assert await closed(reader)
        socket = await TcpTransport().dial(listener.address)  # others are served
        await socket.close()
    assert len(caplog.records) == 1, caplog.text


async def test_a_server_that_breaks_the_rules_is_a_bad_request_to_its_callers() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(PEER)
        await reader.read(100)
        writer.write(frame(99))
        with suppress(OSError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    socket = await TcpTransport().dial(f"{host}:{port}")
    await socket.send(Message({}, b"x"))
    with pytest.raises(BadRequest, match="unknown type 99"):
        await soon(socket.recv())
    await socket.close()
    server.close()


async def test_a_connection_without_a_preface_is_closed() -> None:
    async with listening(dial_timeout=0.1) as listener:
        host, _, port = listener.address.rpartition(":")
        for start in (b"", MAGIC, MAGIC[:3]):
            async with raw((host, int(port))) as (reader, writer):
                writer.write(start)
                assert await closed(reader)


async def test_dialling_that_is_cancelled_leaves_it_to_the_others() -> None:
    async with listening() as listener:
        transport = TcpTransport()
        first = asyncio.create_task(transport.dial(listener.address))
        others = [asyncio.create_task(transport.dial(listener.address)) for _ in range(3)]
        await asyncio.sleep(0)
        first.cancel()
        sockets = await soon(asyncio.gather(*others))
        for socket in sockets:
            await socket.send(Message({}, b"x"))
            await soon(socket.recv())
        await asyncio.gather(*(socket.close() for socket in sockets))
        with suppress(asyncio.CancelledError):
            await (await first).close()


async def test_nobody_there_is_told_to_all_who_wait() -> None:
    async with listening() as listener:
        address = listener.address
    transport = TcpTransport()
    got = await soon(
        asyncio.gather(*(transport.dial(address) for _ in range(5)), return_exceptions=True)
    )
    assert [type(one) for one in got] == [Unavailable] * 5
    assert len({id(one) for one in got}) == 5


async def test_who_receives_as_fast_as_it_comes_is_sent_more_at_a_time() -> None:
    given: list[int] = []

    async def accept(socket: Socket) -> None:
        while True:
            await socket.recv()

    async with listening(accept) as listener, peer(listener) as (reader, writer):
        writer.write(frame(MESSAGE, 1))
        used, left = COST, 512 * 1024 - COST
        while len(given) < 5:
            while left > 60_000 + COST:
                writer.write(frame(MESSAGE, 1, payload=bytes(60_000)))
                used += 60_000 + COST
                left -= 60_000 + COST
            kind, _, session, count, _ = await answer(reader)
            assert (kind, session) == (WINDOW, 1)
            given.append(count)
            left += count
        assert sum(given) <= used + 4 * 1024 * 1024 - 512 * 1024
        assert sum(given) > used + 512 * 1024


@pytest.mark.parametrize("size", [1, 16, 1000])
async def test_frames_in_small_pieces(size: int) -> None:
    body = bytes(range(256)) * 40
    data = frame(MESSAGE, 1, payload=body) + frame(MESSAGE, 2, payload=b"x")
    async with listening() as listener, peer(listener) as (reader, writer):
        for place in range(0, len(data), size):
            writer.write(data[place : place + size])
            await asyncio.sleep(0)
        assert (await answer(reader))[0] == DEFINE
        assert (await answer(reader))[2:] == (1, 3, b"yes" + body)
        assert (await answer(reader))[2:] == (2, 3, b"yesx")
