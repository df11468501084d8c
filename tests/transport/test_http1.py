"""HTTP/1.1 as framing: Go Micro's bytes in, our bytes out, whatever the pieces."""

from __future__ import annotations

import asyncio

import pytest

from shoal.errors import BadRequest, ConnectionClosed, Error, TooLarge
from shoal.message import Header, Message
from shoal.transport._http1 import MAX_HEADER, MAX_HEADERS
from tests.transport import go_bytes
from tests.transport.wire import (
    LIMIT,
    client_socket,
    ended,
    everywhere,
    feed,
    received,
    server_socket,
)

REQUESTS = {
    "unary": (go_bytes.UNARY_REQUEST, [b'{"name":"John"}\n']),
    "proto": (go_bytes.PROTO_REQUEST, [b"\x0a\x01\x78"]),
    "empty proto": (go_bytes.EMPTY_PROTO_REQUEST, [b""]),
    "stream": (
        b"".join(go_bytes.STREAM_REQUESTS),
        [b'{"name":""}\n', b'{"name":"a"}\n', b'{"name":"b"}\n', b""],
    ),
}
RESPONSES = {
    "unary": (go_bytes.UNARY_RESPONSE, [b'{"msg":"Hello John"}\n']),
    "error": (go_bytes.ERROR_RESPONSE, [b""]),
    "stream": (
        b"".join(go_bytes.STREAM_RESPONSES),
        [b'{"msg":"got a"}\n', b'{"msg":"got b"}\n', b""],
    ),
}
CHUNKED = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n"


async def parsed(*pieces: bytes, client: bool = False) -> list[Message]:
    """Return what the pieces are for one side; the connection ends after them."""
    socket, _ = client_socket() if client else server_socket()
    feed(socket, *pieces)
    ended(socket)
    return await received(socket)


async def refused(*pieces: bytes, client: bool = False, limit: int = LIMIT) -> tuple[Error, bytes]:
    """Return the error pieces end in, and what was answered."""
    socket, wire = client_socket(limit) if client else server_socket(limit)
    feed(socket, *pieces)
    with pytest.raises((BadRequest, TooLarge, ConnectionClosed)) as caught:
        async with asyncio.timeout(5):
            while True:
                await socket.recv()
    assert wire.closing or wire.ended
    ended(socket)
    return caught.value, bytes(wire.written)


# Go Micro's bytes


@pytest.mark.parametrize(("data", "bodies"), REQUESTS.values(), ids=REQUESTS)
async def test_go_requests_in_any_pieces(data: bytes, bodies: list[bytes]) -> None:
    whole = await parsed(data)
    assert [message.body for message in whole] == bodies
    assert await parsed(*(data[place : place + 1] for place in range(len(data)))) == whole
    for parts in everywhere(data):
        assert await parsed(*parts) == whole


@pytest.mark.parametrize(("data", "bodies"), RESPONSES.values(), ids=RESPONSES)
async def test_go_responses_in_any_pieces(data: bytes, bodies: list[bytes]) -> None:
    whole = await parsed(data, client=True)
    assert [message.body for message in whole] == bodies
    pieces = (data[place : place + 1] for place in range(len(data)))
    assert await parsed(*pieces, client=True) == whole
    for parts in everywhere(data):
        assert await parsed(*parts, client=True) == whole


async def test_the_headers_of_a_go_request() -> None:
    (message,) = await parsed(go_bytes.UNARY_REQUEST)
    expected = {
        "Accept": "application/json",
        "Content-Length": "16",
        "Content-Type": "application/json",
        "Foo-Bar": "baz",
        "Micro-Endpoint": "Greeter.Hello",
        "Micro-Id": "0",
        "Micro-Method": "Greeter.Hello",
        "Micro-Service": "helloworld",
        "Timeout": "5000000000",
        "User-Agent": "Go-http-client/1.1",
    }
    assert expected.items() <= message.header.items()


async def test_the_headers_of_go_errors_and_ends() -> None:
    (message,) = await parsed(go_bytes.ERROR_RESPONSE, client=True)
    assert message.header["Micro-Error"] == go_bytes.ERROR_TEXT
    for end in (go_bytes.STREAM_REQUESTS[-1], go_bytes.STREAM_RESPONSES[-1]):
        (message,) = await parsed(end, client=end.startswith(b"HTTP"))
        assert message.header["Micro-Error"] == "EOS"


# What else a request may look like


async def test_several_requests_in_one_piece() -> None:
    data = go_bytes.UNARY_REQUEST * 5
    assert [message.body for message in await parsed(data)] == [b'{"name":"John"}\n'] * 5


async def test_the_first_of_several_equal_headers_counts() -> None:
    (message,) = await parsed(b"POST / HTTP/1.1\r\nA: 1\r\na: 2\r\nB: 3\r\nA: 4\r\n\r\n")
    assert message.header == {"A": "1", "B": "3"}


async def test_values_are_utf_8_and_trimmed() -> None:
    data = "POST / HTTP/1.1\r\nA:  Grüße, 世界 \t\r\nB:\r\nC:   \r\nD:x\r\n\r\n".encode()
    (message,) = await parsed(data)
    assert message.header == {"A": "Grüße, 世界", "B": "", "C": "", "D": "x"}
    (message,) = await parsed(b"POST / HTTP/1.1\r\nA: \xff\xfe\r\n\r\n")
    assert message.header == {"A": "\N{REPLACEMENT CHARACTER}" * 2}


async def test_lower_case_names() -> None:
    data = go_bytes.UNARY_REQUEST
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.split(b"\r\n")
    lower = [line.split(b":")[0].lower() + b":" + line.split(b":", 1)[1] for line in lines]
    other = b"\r\n".join([first, *lower]) + b"\r\n\r\n" + body
    assert await parsed(other) == await parsed(data)


@pytest.mark.parametrize("line", ["GET /any/path?x=y HTTP/1.1", "PUT / HTTP/1.1",
                                  "OPTIONS * HTTP/1.1", "GET http://host/x HTTP/1.1",
                                  "DELETE / HTTP/1.0"])  # fmt: skip
async def test_method_and_path_do_not_matter(line: str) -> None:
    data = f"{line}\r\nMicro-Id: 1\r\n\r\n".encode()
    assert [message.header["Micro-Id"] for message in await parsed(data * 2)] == ["1", "1"]


async def test_http_1_0_stays_open() -> None:
    socket, wire = server_socket()
    for _ in range(3):
        feed(socket, b"POST / HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi")
        assert (await socket.recv()).body == b"hi"
        await socket.send(Message({}, b"yes"))
    assert wire.written == b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nyes" * 3
    assert not wire.closing
    ended(socket)


async def test_chunks_with_extensions_and_trailers() -> None:
    data = (
        CHUNKED + b"Micro-Id: 1\r\n\r\n"
        b'3;name=value\r\nabc\r\n2;a;b="c d"\r\nde\r\n0\r\nMicro-Error: late\r\nMicro-Id: 9\r\n\r\n'
        b"POST / HTTP/1.1\r\nMicro-Id: 2\r\n\r\n"
    )
    for parts in everywhere(data):
        first, second = await parsed(*parts)
        assert first.body == b"abcde"
        assert first.header == {"Transfer-Encoding": "chunked", "Micro-Id": "1"}
        assert second.header == {"Micro-Id": "2"}


async def test_a_body_in_many_chunks() -> None:
    body = bytes(range(256)) * 40
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(body[at : at + 100]), body[at : at + 100])
        for at in range(0, len(body), 100)
    )
    (message,) = await parsed(CHUNKED + b"\r\n" + chunks + b"0\r\n\r\n")
    assert message.body == body
    assert isinstance(message.body, bytes)


async def test_expect_100_continue() -> None:
    socket, wire = server_socket()
    head = b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n"
    feed(socket, head)
    assert wire.written == b"HTTP/1.1 100 Continue\r\n\r\n"
    feed(socket, b"hi")
    assert (await socket.recv()).body == b"hi"
    ended(socket)


async def test_nobody_is_told_to_send_what_is_too_large() -> None:
    data = b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 9\r\n\r\n"
    error, answer = await refused(data, limit=8)
    assert isinstance(error, TooLarge)
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_after_connection_close_nothing_more_is_received() -> None:
    socket, wire = server_socket()
    data = b"POST / HTTP/1.1\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nhi"
    feed(socket, data + data, data)
    assert (await socket.recv()).body == b"hi"
    with pytest.raises(ConnectionClosed, match="asked to close"):
        await socket.recv()
    await socket.send(Message({}, b"answer"))
    assert wire.written.endswith(b"\r\n\r\nanswer")
    assert not wire.closing
    ended(socket)


# What a response may look like


async def test_responses_that_only_announce_one_are_skipped() -> None:
    data = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
    )
    for parts in everywhere(data):
        (message,) = await parsed(*parts, client=True)
        assert message == Message({"Content-Length": "2"}, b"hi")


async def test_a_chunked_response() -> None:
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    assert [message.body for message in await parsed(data * 2, client=True)] == [b"hi"] * 2


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, BadRequest), (404, ConnectionClosed), (408, ConnectionClosed), (413, TooLarge),
     (500, ConnectionClosed), (502, ConnectionClosed), (301, ConnectionClosed),
     (204, ConnectionClosed), (431, TooLarge)],
)  # fmt: skip
async def test_another_status_is_an_error_with_its_text(status: int, kind: type[Error]) -> None:
    body = b"" if status == 204 else b"why not"
    data = b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
    for more in (b"", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"):
        error, _ = await refused(data + more, client=True)
        assert type(error) is kind
    assert str(error) == f"127.0.0.1:2 answered {status}" + (": why not" if body else "")


async def test_a_response_without_length_ends_with_the_connection() -> None:
    for tail in ([], [b"Connection: close\r\n"]):
        socket, wire = client_socket()
        feed(socket, b"HTTP/1.1 200 OK\r\n" + b"".join(tail) + b"\r\n", b"half", b" and half")
        assert socket.eof_received() is False
        assert (await socket.recv()).body == b"half and half"
        with pytest.raises(ConnectionClosed):
            await socket.recv()
        assert wire.closing
        ended(socket)


@pytest.mark.parametrize("length", [b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n"])
async def test_a_response_that_breaks_off_is_none(length: bytes) -> None:
    socket, _ = client_socket()
    feed(socket, b"HTTP/1.1 200 OK\r\n" + length + b"\r\n", b"1\r\nx")
    socket.eof_received()
    with pytest.raises(ConnectionClosed):
        await socket.recv()
    ended(socket)


async def test_nothing_is_sent_after_a_response_that_closes() -> None:
    socket, wire = client_socket()
    calls: list[str] = []
    socket.on_lost(lambda: calls.append("lost"))
    feed(socket, b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi")
    with pytest.raises(ConnectionClosed) as caught:
        await socket.send(Message())
    assert caught.value.unsent
    assert (await socket.recv()).body == b"hi"
    await asyncio.sleep(0)
    assert calls == ["lost"]
    assert wire.closing
    assert not wire.written
    ended(socket)


async def test_another_protocol_is_an_error() -> None:
    data = b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\nwhatever"
    error, _ = await refused(data, client=True)
    assert "another protocol" in str(error)


# Limits


async def test_a_header_over_the_limit() -> None:
    line = b"X: " + b"x" * (MAX_HEADER + 1) + b"\r\n"
    for data in (
        b"POST / HTTP/1.1\r\n" + line + b"\r\n",
        b"POST / HTTP/1.1\r\n" + b"".join(b"X-%d: x\r\n" % n for n in range(MAX_HEADERS + 2)),
        b"POST / HTTP/1.1\r\n" + b"X:\r\n" * (MAX_HEADER + 2),
        b"POST / HTTP/1.1\r\n" + b"".join(b"X-%d: %b\r\n" % (n, b"x" * 1000) for n in range(100)),
    ):
        error, answer = await refused(data)
        assert isinstance(error, TooLarge)
        assert answer.startswith(b"HTTP/1.1 431 ")


async def test_a_header_as_large_as_the_limit() -> None:
    line = b"X: " + b"x" * (MAX_HEADER - 1) + b"\r\n"
    (message,) = await parsed(b"POST / HTTP/1.1\r\n" + line + b"\r\n")
    assert len(message.header["X"]) == MAX_HEADER - 1
    names = b"".join(b"X-%d: x\r\n" % number for number in range(MAX_HEADERS))
    (message,) = await parsed(b"POST / HTTP/1.1\r\n" + names + b"\r\n")
    assert len(message.header) == MAX_HEADERS


@pytest.mark.parametrize("part", [b"POST /", b"POST / HTTP/1.1\r\nX: ", b"POST / HTTP/1.1\r\nX"])
async def test_a_header_that_never_ends(part: bytes) -> None:
    for size in (1, 1000, 300_000):
        pieces = [b"x" * size] * ((MAX_HEADER * 6) // size + 1)
        error, answer = await refused(part, *pieces)
        assert isinstance(error, TooLarge)
        assert answer.startswith(b"HTTP/1.1 431 ")


async def test_trailers_and_chunk_extensions_that_never_end() -> None:
    for start in (b"0\r\nX: ", b"0\r\nX", b"1;"):
        error, answer = await refused(CHUNKED + b"\r\n" + start, *[b"x" * 1000] * 400)
        assert isinstance(error, TooLarge)
        assert answer.startswith(b"HTTP/1.1 431 ")
    many = b"".join(b"X-%d: x\r\n" % number for number in range(MAX_HEADERS + 2))
    error, answer = await refused(CHUNKED + b"\r\n0\r\n" + many)
    assert isinstance(error, TooLarge)
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_a_body_over_the_limit_declared_and_not() -> None:
    for data in (
        b"POST / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n",
        CHUNKED + b"\r\n3e9\r\n" + b"x" * 1001 + b"\r\n",
        CHUNKED + b"\r\n" + (b"64\r\n" + b"x" * 100 + b"\r\n") * 11,
    ):
        error, answer = await refused(data, limit=1000)
        assert isinstance(error, TooLarge)
        assert "over the limit of 1000 bytes" in str(error)
        assert answer.startswith(b"HTTP/1.1 413 ")
    for data in (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001,
    ):
        error, answer = await refused(data, client=True, limit=1000)
        assert isinstance(error, TooLarge)
        assert answer == b""


async def test_a_body_as_large_as_the_limit() -> None:
    socket, _ = server_socket(1000)
    feed(socket, b"POST / HTTP/1.1\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000)
    feed(socket, CHUNKED + b"\r\n3e8\r\n" + b"y" * 1000 + b"\r\n0\r\n\r\n")
    assert [(await socket.recv()).body[:1] for _ in range(2)] == [b"x", b"y"]
    ended(socket)


async def test_more_chunks_than_there_is_in_them() -> None:
    error, answer = await refused(CHUNKED + b"\r\n", *[b"1\r\nx\r\n" * 100] * 1000)
    assert isinstance(error, TooLarge)
    assert answer.startswith(b"HTTP/1.1 431 ")
    # In moderation one byte a chunk is what some clients do.
    text = b"1\r\nx\r\n" * 5000 + b"0\r\n\r\n"
    (message,) = await parsed(CHUNKED + b"\r\n", *(text[at : at + 7] for at in range(0, 30000, 7)),
                              text[30002:])  # fmt: skip
    assert message.body == b"x" * 5000


# Encoding


async def test_the_bytes_of_a_request() -> None:
    socket, wire = client_socket()
    shared = Header({"Content-Type": "application/json", "Micro-Service": "greeter"})
    await socket.send(Message({"micro-id": "1"}, b"{}", shared))
    assert wire.written == (
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1:9\r\nUser-Agent: shoal\r\n"
        b"Content-Type: application/json\r\nMicro-Service: greeter\r\nMicro-Id: 1\r\n"
        b"Content-Length: 2\r\n\r\n{}"
    )
    ended(socket)


async def test_the_bytes_of_a_response() -> None:
    socket, wire = server_socket()
    await socket.send(Message({"Micro-Id": "1", "Micro-Error": "Grüße\r\nEvil: x"}))
    assert wire.written == (
        "HTTP/1.1 200 OK\r\nMicro-Id: 1\r\nMicro-Error: Grüße  Evil: x\r\n"
        "Content-Length: 0\r\n\r\n".encode()
    )
    ended(socket)


@pytest.mark.parametrize("name", ["Content-Length", "content-length", "Transfer-Encoding",
                                  "TRANSFER-ENCODING", "Connection", "Host", "Expect", "Upgrade",
                                  "Trailer", "Te", "Keep-Alive"])  # fmt: skip
async def test_a_message_cannot_change_the_framing(name: str) -> None:
    socket, wire = client_socket()
    await socket.send(Message({name: "7"}, b"x", Header({name: "8"})))
    assert wire.written == (
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1:9\r\nUser-Agent: shoal\r\nContent-Length: 1\r\n\r\nx"
    )
    ended(socket)


async def test_what_one_side_writes_the_other_reads() -> None:
    message = Message({"A": "1", "Micro-Error": "über\ttab\x01\x7f"}, bytes(range(256)))
    client, up = client_socket()
    server, down = server_socket()
    await client.send(message)
    await server.send(message)
    feed(server, bytes(up.written))
    feed(client, bytes(down.written))
    for socket in (client, server):
        got = await socket.recv()
        assert got.body == message.body
        assert got.header["A"] == "1"
        assert got.header["Micro-Error"] == "über\ttab"
        ended(socket)
