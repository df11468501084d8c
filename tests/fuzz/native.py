"""Fuzz Shoal's own protocol: `python -m tests.fuzz.native --seconds 60`.

The first byte of an input chooses the side and whether a good preface comes before the rest, the
second how that is cut into pieces.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from shoal.errors import BadRequest, ConnectionClosed, Error, TooLarge
from shoal.message import Message, canonical
from shoal.transport._native_connection import NativeConnection
from shoal.transport._native_frames import (
    ABORT,
    CLOSE,
    DATA,
    DEFINE,
    GOAWAY,
    MAX_HEADER,
    MAX_HEADERS,
    MAX_PAYLOAD,
    MESSAGE,
    MORE,
    PING,
    RESTART,
    WINDOW,
    Limits,
    frame,
)
from shoal.transport._native_session import LARGEST_WINDOW, NativeSession
from tests.fuzz.http1 import running
from tests.fuzz.runner import main
from tests.transport.wire import Wire

LIMITS = Limits(2000, window=4096, sessions=8)

WORDS = [
    LIMITS.preface(), frame(PING, 0, 5), frame(CLOSE, 1), frame(CLOSE, 2, number=413, payload=b"x"),
    frame(DEFINE, 0, 8, number=1, payload=b"Micro-IdA\nb"), frame(MESSAGE, 1, payload=b"hi"),
    frame(DEFINE, 0, 1, number=1, flags=RESTART, payload=b"a"), frame(WINDOW, 1, 1000),
    frame(MESSAGE, 1, 1, number=1, payload=b"7hello"), frame(GOAWAY, 0, 1),
    frame(MESSAGE, 3, flags=MORE, payload=b"\0\0\x01\0abc"), frame(DATA, 3, payload=bytes(253)),
    frame(DATA, 3, flags=MORE, payload=bytes(100)), frame(DATA, 3, flags=ABORT),
    frame(GOAWAY, 0, 0, number=400, payload=b"why"), b"\0\0\0\1", b"\xff\xff\xff\xff", b"\n",
]  # fmt: skip

Outcome = tuple[list[list[Message]], list[type[Error] | None], type[Error] | None, bytes]


def outcome(dialled: bool, pieces: Sequence[bytes]) -> Outcome:
    """Return each session's messages and end, the connection's end, and what was answered."""
    sessions: list[NativeSession] = []
    with running() as loop:
        link = NativeConnection(
            memoryview(bytearray(256 * 1024)),
            LIMITS,
            accept=None if dialled else sessions.append,
            keep_alive=30.0,
            timeout=5.0,
        )
        wire = Wire()
        link.connection_made(wire)
        if dialled:
            begin = LIMITS.preface()
            link.get_buffer(-1)[: len(begin)] = begin
            link.buffer_updated(len(begin))
            for _ in range(4):
                sessions.append(link.session())
                link.open(sessions[-1])
        for piece in pieces:
            if not piece or wire.closing or wire.ended:
                continue
            link.get_buffer(-1)[: len(piece)] = piece
            link.buffer_updated(len(piece))
            assert sum(map(len, link._parts)) < MAX_PAYLOAD + 16
            assert len(link._users) <= LIMITS.sessions
            waiting = sum(session._waiting for session in sessions)
            assert (
                link._unread_bytes == waiting <= len(sessions) * (LARGEST_WINDOW + 2 * MAX_PAYLOAD)
            )
            assert link._incomplete_bytes <= len(sessions) * LIMITS.max_message
        loop.run()
        end = link._inbox._end
        link.connection_lost(None)
        loop.run()
        assert not link._users
        assert link._unread_bytes == link._incomplete_bytes == 0
        ends: list[type[Error] | None] = []
        for session in sessions:
            assert session._inbox._end is not None
            ends.append(type(session._inbox._end))
        found = [list(session._inbox.messages) for session in sessions]
        return found, ends, type(end) if end else None, bytes(wire.written)


def checked(dialled: bool, pieces: Sequence[bytes]) -> None:
    """See that pieces are what they are in one, and messages are what they should be."""
    found, ends, end, written = outcome(dialled, [b"".join(pieces)])
    assert outcome(dialled, pieces) == (found, ends, end, written)
    assert end in (None, BadRequest, TooLarge, ConnectionClosed), end
    assert set(ends) <= {BadRequest, TooLarge, ConnectionClosed}, ends
    assert b"Traceback" not in written
    for message in (message for messages in found for message in messages):
        assert type(message.body) is bytes
        assert len(message.body) <= LIMITS.max_message
        assert len(message.header) <= 2 * MAX_HEADERS
        assert sum(map(len, message.header.values())) <= 2 * MAX_HEADER
        for name, value in message.header.items():
            assert canonical(name) == name
            assert not set(value) & set("\r\n\0")


def check(data: bytes) -> None:
    """Check one input."""
    if len(data) < 2:
        return
    dialled = bool(data[0] & 1)
    chance = random.Random(data[1])
    rest = data[2:] if dialled or data[0] & 2 else LIMITS.preface() + data[2:]
    pieces = []
    while rest:
        size = chance.choice((1, 2, 3, 10, 100, 1000))
        pieces.append(rest[:size])
        rest = rest[size:]
    checked(dialled, pieces)


if __name__ == "__main__":
    main("native", check, words=WORDS)
