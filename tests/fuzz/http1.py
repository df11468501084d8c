"""Fuzz the HTTP/1.1 sockets: `python -m tests.fuzz.http1 --seconds 60`.

The first byte of an input chooses the side, the second how the rest is cut into pieces.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

from shoal.errors import BadRequest, ConnectionClosed, Error, TooLarge
from shoal.message import Message, canonical
from shoal.transport._header import _FRAMING
from shoal.transport._http1 import (
    BUFFER,
    MAX_HEADER,
    MAX_HEADERS,
    ClientSocket,
    HttpSocket,
    ServerSocket,
)
from tests.fuzz.runner import main
from tests.transport.wire import Wire

LIMIT = 2000  # bytes of a body

WORDS = [
    b"POST / HTTP/1.1\r\n", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n\r\n", b"\r\n\r\n",
    b"Content-Length: ", b"Transfer-Encoding: chunked\r\n", b"0\r\n\r\n", b"Connection: close\r\n",
    b"Connection: Upgrade\r\nUpgrade: h2c\r\n", b"Expect: 100-continue\r\n", b"Micro-Id: 1\r\n",
    b"\n", b"\r", b"\0", b":", b" ", b"\t", b"ffffffffffffffff", b"-1", b"PRI * HTTP/2.0\r\n\r\nSM",
    b"HTTP/1.0", b"CONNECT ", b";a=b", b"\xff", b"204 No", b"413 X",
]  # fmt: skip


class StillLoop:
    """As much of an event loop as sockets need, in which nothing happens by itself."""

    def __init__(self) -> None:
        self._ready: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def time(self) -> float:
        return 0.0

    def get_debug(self) -> bool:
        return False

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=cast(asyncio.AbstractEventLoop, self))

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> Any:
        self._ready.append((callback, args))

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:
        loop = cast(asyncio.AbstractEventLoop, self)
        return asyncio.TimerHandle(delay, callback, args, loop, context)

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        pass

    def run(self) -> None:
        """Run what was called for soon."""
        while self._ready:
            callback, args = self._ready.pop(0)
            callback(*args)


@contextmanager
def running() -> Iterator[StillLoop]:
    """Make a loop the running one for a block."""
    loop = StillLoop()
    before = asyncio._get_running_loop()
    asyncio._set_running_loop(cast(asyncio.AbstractEventLoop, loop))
    try:
        yield loop
    finally:
        asyncio._set_running_loop(before)


def outcome(
    client: bool, pieces: Sequence[bytes]
) -> tuple[list[Message], type[Error] | None, list[bytes]]:
    """Return the messages in pieces, the error they end in if they do, and statuses answered."""
    with running() as loop:
        buffer = memoryview(bytearray(BUFFER))
        socket: HttpSocket
        if client:
            socket = ClientSocket("127.0.0.1:9", buffer, LIMIT, 30.0)
        else:
            socket = ServerSocket(buffer, LIMIT, 30.0)
        wire = Wire()
        socket.connection_made(wire)
        for piece in pieces:
            if not piece or wire.closing or wire.ended:
                continue
            part = socket.get_buffer(-1)
            part[: len(piece)] = piece
            socket.buffer_updated(len(piece))
            assert socket._more <= MAX_HEADER + 2 * LIMIT + len(piece)
            assert len(socket._body) <= LIMIT
        loop.run()
        end = socket._inbox._end
        if not (wire.closing or wire.ended):
            socket.eof_received()
            loop.run()
        socket.connection_lost(None)
        loop.run()
        statuses = re.findall(rb"(?m)^HTTP/1\.1 (\d+)", wire.written)
        return list(socket._inbox.messages), type(end) if end else None, statuses


def checked(client: bool, pieces: Sequence[bytes]) -> None:
    """See that pieces are what they are in one, and messages are what they should be."""
    whole = b"".join(pieces)
    messages, error, statuses = outcome(client, [whole])
    assert outcome(client, pieces) == (messages, error, statuses)
    assert error in (None, BadRequest, TooLarge, ConnectionClosed), error
    if error in (BadRequest, TooLarge) and not client:
        assert statuses[-1] in (b"400", b"413", b"431")
        statuses.pop()
    assert set(statuses) <= {b"100"}
    for message in messages:
        assert type(message.body) is bytes
        assert len(message.body) <= LIMIT
        assert len(message.header) <= MAX_HEADERS
        for name, value in message.header.items():
            assert canonical(name) == name
            assert not set(value) & set("\r\n\0")
        assert again(client, message) == message.body


def again(client: bool, message: Message) -> bytes:
    """Return the body of a message sent on once more; its headers must stay the same."""
    with running():
        buffer = memoryview(bytearray(BUFFER))
        sender: HttpSocket = (
            ServerSocket(buffer, LIMIT, 30.0)
            if client
            else ClientSocket("127.0.0.1:9", buffer, LIMIT, 30.0)
        )
        data = sender._encode(message)
    (got,), error, _ = outcome(client, [data])
    assert error is None
    own = {name: value for name, value in message.header.items() if name not in _FRAMING}
    left = {name: value for name, value in got.header.items() if name not in _FRAMING}
    assert left == own
    return got.body


def check(data: bytes) -> None:
    """Check one input."""
    if len(data) < 2:
        return
    chance = random.Random(data[1])
    rest = data[2:]
    pieces = []
    while rest:
        size = chance.choice((1, 2, 3, 10, 100, 1000))
        pieces.append(rest[:size])
        rest = rest[size:]
    checked(bool(data[0] & 1), pieces)


if __name__ == "__main__":
    main("http1", check, words=WORDS)
