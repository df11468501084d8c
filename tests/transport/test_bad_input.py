"""What strangers send to the listening port, and to clients: refused, and the others go on."""

from __future__ import annotations

import asyncio
import logging
import random
import socket as tcp
import struct
import time
import tracemalloc

import pytest

from shoal.errors import BadRequest, ConnectionClosed, Error, TooLarge
from shoal.message import Message
from shoal.transport.http import HttpTransport
from tests.transport.wire import PATIENCE, answering, raw, response, serving

HEAD = b"POST / HTTP/1.1\r\n"
BAD = {
    "garbage": (b"\x00\xff\xfe\x80garbage\r\n\r\n", 400),
    "a line of text": (b"hello, is anybody there?\r\n\r\n", 400),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500), 400),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9), 400),
    "Upgrade: h2c": (
        HEAD
        + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n"
        b"Content-Length: 2\r\n\r\nhi",
        400,
    ),
    "CONNECT": (b"CONNECT example.org:443 HTTP/1.1\r\n\r\n", 400),
    "another version": (b"POST / HTTP/3.0\r\n\r\n", 400),
    "bare line feeds": (b"POST / HTTP/1.1\nA: b\n\n", 400),
    "a folded line": (HEAD + b"A: b\r\n c\r\n\r\n", 400),
    "a blank before the colon": (HEAD + b"A : b\r\n\r\n", 400),
    "no colon": (HEAD + b"Anything\r\n\r\n", 400),
    "NUL in a value": (HEAD + b"A: b\0c\r\n\r\n", 400),
    "NUL in a name": (HEAD + b"A\0: b\r\n\r\n", 400),
    "CR in a value": (HEAD + b"A: b\rc\r\n\r\n", 400),
    "length and chunks": (
        HEAD
        + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        + b"GET /x HTTP/1.1\r\n\r\n",
        400,
    ),
    "chunks and length": (
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        400,
    ),
    "two lengths": (HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
    "the same length twice": (HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    "a list of lengths": (HEAD + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    "a negative length": (HEAD + b"Content-Length: -1\r\n\r\n", 400),
    "a signed length": (HEAD + b"Content-Length: +5\r\n\r\nhello", 400),
    "a hexadecimal length": (HEAD + b"Content-Length: 0x5\r\n\r\nhello", 400),
    "a length beyond 64 bits": (HEAD + b"Content-Length: 18446744073709551616\r\n\r\n", 400),
    "another coding": (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 400),
    "a coding before the chunks": (HEAD + b"Transfer-Encoding: chunked, gzip\r\n\r\n", 400),
    "a hidden coding": (HEAD + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400),
    "chunked twice": (
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "no chunk size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n", 400),
    "a negative chunk size": (HEAD + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n", 400),
    "a huge chunk size": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n",
        400,
    ),
    "a chunk longer than it says": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n",
        400,
    ),
    "a body over the limit": (HEAD + b"Content-Length: 100000000\r\n\r\n", 413),
    "a chunk over the limit": (
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n100000\r\n" + bytes(0x100000) + b"\r\n",
        413,
    ),
    "a header over the limit": (HEAD + b"A: " + b"x" * 70_000 + b"\r\n\r\n", 431),
    "too many headers": (HEAD + b"".join(b"A%d: x\r\n" % n for n in range(300)) + b"\r\n", 431),
    "a header without end": (HEAD + b"A: " + b"x" * 1_000_000, 431),
    "a target without end": (b"POST /" + b"x" * 1_000_000, 431),
}


async def works(address: tuple[str, int], **settings: object) -> None:
    """See that somebody else is served."""
    socket = await HttpTransport(**settings).dial("{}:{}".format(*address))  # type: ignore[arg-type]  # mixed
    await socket.send(Message({"A": "b"}, b"hello"))
    async with asyncio.timeout(PATIENCE):
        assert (await socket.recv()).body == b"hello"
    await socket.close()


@pytest.mark.parametrize(("data", "status"), BAD.values(), ids=BAD)
async def test_bad_input_is_refused_with_a_status(
    data: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serving(max_message=0x10000) as address, raw(address) as (reader, writer):
        writer.write(data)
        got, header, text = await response(reader)
        assert got == status
        assert header[b"Connection"] == b"close"
        assert text
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""  # closed, and nothing else was answered
        await works(address)
    assert len(caplog.records) == 1, caplog.text
    assert caplog.records[0].levelno == logging.INFO


@pytest.mark.parametrize(("data", "status"), BAD.values(), ids=BAD)
async def test_bad_input_behind_a_good_request(data: bytes, status: int) -> None:
    async with serving(max_message=0x10000) as address, raw(address) as (reader, writer):
        writer.write(HEAD + b"Content-Length: 2\r\n\r\nhi")
        got, _, text = await response(reader)
        assert (got, text) == (200, b"hi")
        writer.write(data)
        assert (await response(reader))[0] == status
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""


async def test_what_comes_is_named() -> None:
    for data, words in (
        (b"\x16\x03\x01\x00\x05hello", b"TLS"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"HTTP/2"),
        (HEAD + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", b"another protocol"),
        (HEAD + b"Content-Length: 9\r\n\r\n", b"over the limit of 8 bytes"),
    ):
        async with serving(max_message=8) as address, raw(address) as (reader, writer):
            writer.write(data)
            assert words in (await response(reader))[2]


async def test_a_client_that_sends_too_much_reads_why() -> None:
    transport = HttpTransport()
    async with serving(max_message=1000) as (host, port):
        for _ in range(5):
            socket = await transport.dial(f"{host}:{port}")
            await socket.send(Message({}, bytes(3_000_000)))
            with pytest.raises(TooLarge, match=r"answered 413: .* over the limit of 1000 bytes"):
                async with asyncio.timeout(PATIENCE):
                    await socket.recv()
            await socket.close()


# Time


async def test_a_request_that_comes_too_slowly() -> None:
    for start in (HEAD, HEAD + b"Content-Length: 100\r\n\r\nx", b"P"):
        async with serving(read_timeout=0.2) as address, raw(address) as (reader, writer):
            writer.write(start)
            await asyncio.sleep(0.05)
            writer.write(b"A")
            status, _, text = await response(reader)
            assert status == 408
            assert b"took over 0.2 s" in text
            await works(address)


async def test_a_connection_on_which_nothing_comes_is_closed_without_a_word() -> None:
    async with serving(read_timeout=0.1) as address, raw(address) as (reader, _):
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""


async def test_an_idle_connection_stays_after_its_first_message() -> None:
    async with serving(read_timeout=0.1) as address, raw(address) as (reader, writer):
        for _ in range(2):
            writer.write(HEAD + b"Content-Length: 2\r\n\r\nhi")
            assert (await response(reader))[2] == b"hi"
            await asyncio.sleep(0.3)


async def test_messages_that_overlap_pieces_are_not_one_slow_message() -> None:
    """Each read ends within a message; each message by itself is fast."""
    message = HEAD + b"Content-Length: 20\r\n\r\n" + bytes(20)
    async with serving(read_timeout=0.5) as address, raw(address) as (reader, writer):
        writer.write(message[:30])
        for _ in range(40):
            writer.write(message[30:] + message[:30])
            assert (await response(reader))[0] == 200
            await asyncio.sleep(0.02)
        writer.write(message[30:])
        assert (await response(reader))[0] == 200


async def test_many_slow_peers_at_once() -> None:
    async with serving(read_timeout=0.5) as address:
        connections = [await asyncio.open_connection(*address) for _ in range(50)]
        for number, (_, writer) in enumerate(connections):
            writer.write(HEAD[: 1 + number % len(HEAD)])
        await works(address)
        for reader, writer in connections:
            assert (await response(reader))[0] == 408
            writer.close()
            await writer.wait_closed()


# Peers that go away


async def test_peers_that_reset_anywhere(caplog: pytest.LogCaptureFixture) -> None:
    message = HEAD + b"Content-Length: 10\r\n\r\n0123456789"
    async with serving() as address:
        for size in range(0, len(message) + 1, 3):
            with tcp.create_connection(address) as socket:
                # Closing then resets the connection.
                socket.setsockopt(tcp.SOL_SOCKET, tcp.SO_LINGER, struct.pack("ii", 1, 0))
                socket.sendall(message[:size])
                await asyncio.sleep(0)
        await works(address)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_peers_that_break_off_anywhere(caplog: pytest.LogCaptureFixture) -> None:
    message = HEAD + b"Content-Length: 10\r\n\r\n0123456789"
    async with serving() as address:
        for size in range(0, len(message), 3):
            async with raw(address) as (reader, writer):
                writer.write(message[:size])
                writer.write_eof()
                async with asyncio.timeout(PATIENCE):
                    assert await reader.read() == b""
        await works(address)
    assert not [record for record in caplog.records if record.levelno > logging.INFO]


async def test_a_peer_that_never_reads_does_not_hold_a_listener_that_closes() -> None:
    async with serving() as address, raw(address) as (_, writer):
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of what is read from
        body = bytes(1_000_000)
        for _ in range(30):
            writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body)
        await works(address)
        begun = time.monotonic()
    assert time.monotonic() - begun < 15


# Memory


def peak() -> int:
    return tracemalloc.get_traced_memory()[1]


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (HEAD + b"A: ", b"x" * 10_000),
        (HEAD + b"A", b"x" * 10_000),
        (HEAD, b"A: x\r\n" * 2_000),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n" * 2_000),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"2000\r\n" + b"x" * 0x2000 + b"\r\n"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: ", b"x" * 10_000),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;", b"x" * 10_000),
        (HEAD + b"Content-Length: 99999999\r\n\r\n", b"x" * 10_000),
        (b"", b"GET / HTTP/1.1\r\n\r\n" * 1_000),
        (b"", b"\r\n" * 5_000),
    ],
    ids=["value", "name", "headers", "chunks", "body", "trailer", "extension", "declared",
         "messages", "blank lines"],
)  # fmt: skip
async def test_memory_is_bounded(start: bytes, piece: bytes) -> None:
    """A peer sends 60 MB as fast as it is taken; nothing of it is received by what serves."""

    async def stall(socket: object) -> None:
        await asyncio.Event().wait()

    async with serving(stall, max_message=1_000_000) as address:
        tracemalloc.start()
        try:
            await asyncio.to_thread(pour, address, start, piece, 60_000_000)
            assert peak() < 12_000_000
        finally:
            tracemalloc.stop()


def pour(address: tuple[str, int], start: bytes, piece: bytes, size: int) -> None:
    """Send until it is all gone, refused, or not taken for a while."""
    with tcp.create_connection(address, timeout=1.0) as socket:
        try:
            socket.sendall(start)
            for _ in range(size // len(piece)):
                socket.sendall(piece)
        except OSError:
            pass


# The client's side


ANSWERS = {
    "garbage": (b"\x00\xff garbage \r\n\r\n", BadRequest),
    "TLS": (b"\x15\x03\x01\x00\x02\x02\x46", BadRequest),
    "another protocol": (b"SSH-2.0-OpenSSH_9.6\r\n", BadRequest),
    "HTTP/2": (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", BadRequest),
    "a request": (b"POST / HTTP/1.1\r\n\r\n", BadRequest),
    "a body over the limit": (b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n", TooLarge),
    "a body without end": (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(70_000), TooLarge),
    "a header without end": (b"HTTP/1.1 200 OK\r\nA: " + b"x" * 1_000_000, TooLarge),
    "two lengths": (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        BadRequest,
    ),
    "nothing": (b"", ConnectionClosed),
    "half a response": (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", ConnectionClosed),
    "half a header": (b"HTTP/1.1 200 OK\r\nContent-Le", ConnectionClosed),
    "an error page": (
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 7\r\n\r\nnot now",
        ConnectionClosed,
    ),
}


@pytest.mark.parametrize(("data", "kind"), ANSWERS.values(), ids=ANSWERS)
async def test_bad_answers_are_errors_of_their_kind(data: bytes, kind: type[Error]) -> None:
    async with answering(data) as address:
        socket = await HttpTransport(max_message=0x10000).dial(address)
        await socket.send(Message({}, b"hello"))
        for _ in range(2):
            with pytest.raises(Error) as caught:
                async with asyncio.timeout(PATIENCE):
                    await socket.recv()
            assert type(caught.value) is kind
            assert "127.0.0.1" in str(caught.value)
        with pytest.raises(ConnectionClosed):
            await socket.send(Message())
        await socket.close()


async def test_an_answer_that_comes_too_slowly() -> None:
    async with answering(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe", close=False) as address:
        socket = await HttpTransport(read_timeout=0.2).dial(address)
        await socket.send(Message({}, b"hello"))
        with pytest.raises(BadRequest, match="took over"):
            async with asyncio.timeout(PATIENCE):
                await socket.recv()
        await socket.close()


async def test_an_answer_may_be_as_late_as_it_likes() -> None:
    async with answering(close=False) as address:
        socket = await HttpTransport(read_timeout=0.1).dial(address)
        await socket.send(Message({}, b"hello"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await socket.recv()
        await socket.close()


async def test_noise_never_breaks_a_listener() -> None:
    chance = random.Random(7)
    async with serving() as address:
        for _ in range(100):
            async with raw(address) as (_, writer):
                writer.write(chance.randbytes(chance.randrange(200)))
                await writer.drain()
        await works(address)
