"""Heads that are known again mean what the parser makes of them, and only what it accepts is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.message import Message
from shoal.transport import _heads
from tests.transport.wire import client_socket, ended, feed, received, server_socket

REQUEST = (
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nMicro-Endpoint: A.B\r\n"
    b"%bMicro-Id: %d\r\nTimeout: %d\r\nContent-Length: %d\r\n\r\n%b"
)
RESPONSE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nMicro-Id: %d\r\nX-Micro-Id: %d\r\n"
    b"Content-Length: %d\r\n\r\n%b"
)


@pytest.fixture(autouse=True)
def _nothing_known() -> None:
    _heads._heads.clear()


async def _taken(data: bytes, *, client: bool = False) -> Message:
    socket, _ = client_socket() if client else server_socket()
    feed(socket, data)
    ended(socket)
    (message,) = await received(socket)
    return message


@pytest.mark.parametrize("client", [False, True], ids=["request", "response"])
async def test_a_head_is_known_again_with_other_numbers(client: bool) -> None:
    def data(number: int, body: bytes) -> bytes:
        if client:
            return RESPONSE % (number, number, len(body), body)
        return REQUEST % (b"", number, number * 1000, len(body), body)

    first = await _taken(data(1, b"{}"), client=client)
    assert first.shared is None
    second = await _taken(data(77, b'{"name":"John"}'), client=client)
    assert second.shared is not None
    assert second.body == b'{"name":"John"}'
    _heads._heads.clear()
    parsed = await _taken(data(77, b'{"name":"John"}'), client=client)
    assert parsed.shared is None
    assert parsed.header == second.header
    assert second.headers() == second.header
    third = await _taken(data(78, b""), client=client)
    assert third.shared is not second.shared


@given(st.lists(st.binary(max_size=12), max_size=4), st.integers(0, 10**21), st.binary(max_size=30))
async def test_what_is_known_is_what_is_parsed(
    lines: list[bytes], number: int, body: bytes
) -> None:
    extra = b"".join(b"X-%d: %b\r\n" % (place, line) for place, line in enumerate(lines))
    data = REQUEST % (extra, number, number, len(body), body)
    results = []
    _heads._heads.clear()
    for _ in range(2):
        socket, wire = server_socket()
        feed(socket, data)
        closed = wire.closing or wire.ended
        ended(socket)
        results.append((closed, [(m.header, m.body) for m in await received(socket)]))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "line",
    [b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"micro-id: 7\r\n", b"timeout: 1\r\n",
     b"content-length: 2\r\n", b"Transfer-Encoding: chunked\r\n", b"Bad Name: x\r\n"],
)  # fmt: skip
async def test_special_heads_are_not_learnt(line: bytes) -> None:
    for _ in range(2):
        socket, _ = server_socket()
        feed(socket, REQUEST % (line, 1, 2, 2, b"{}"))
        ended(socket)
        await received(socket)
    assert not _heads._heads


async def test_numbers_in_a_body_are_no_head() -> None:
    inner = b"\r\nMicro-Id: 1\r\nContent-Length: 2\r\n\r\n{}"
    start = b"POST / HTTP/1.1\r\nmicro-id: 1\r\nContent-Length: %d\r\n\r\n" % len(inner)
    message = await _taken(start + inner)
    assert message.body == inner
    assert not _heads._heads
    assert (await _taken(start + inner)).body == inner


async def test_a_known_head_keeps_the_limit_of_its_connection() -> None:
    await _taken(REQUEST % (b"", 1, 2, 100, b"x" * 100))
    socket, wire = server_socket(50)
    feed(socket, REQUEST % (b"", 1, 2, 100, b"x" * 100))
    assert wire.written.startswith(b"HTTP/1.1 413")
    ended(socket)


async def test_the_table_is_bounded() -> None:
    for number in range(_heads._LIMIT + 10):
        await _taken(REQUEST % (b"X-Number: %d\r\n" % number, 1, 2, 0, b""))
    assert len(_heads._heads) <= _heads._LIMIT
