"""Module _heads knows the heads of messages again that differ from others only in their numbers.

Calls of one endpoint between two peers have the same head but for id, time and length, and to
parse the rest of it anew is a third of what a small call costs its receiver. What is learnt here
was accepted by the parser before, byte for byte; every other message goes to the parser.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec import Struct

from shoal.message import Header, Message

LARGEST = 16 * 1024  # bytes of a message for which it is worth while
_FIRST = b"\r\nMicro-Id: "
# Headers that say something of the connection: whoever sends them is listened to each time.
_SPECIAL = frozenset(("Connection", "Expect", "Transfer-Encoding", "Upgrade"))
_NAMES = frozenset(("Micro-Id", "X-Micro-Id", "Timeout", "Content-Length"))

Match = Callable[[bytes, int], "re.Match[bytes] | None"]


class Head(Struct, frozen=True):
    """The head of a message that the parser has accepted, but for its numbers."""

    start: bytes
    match: Match
    """Finds the numbers, which come after that."""
    second: str
    """The name of the second one, after the id."""
    whole: dict[str, str]
    """All headers, of which the numbers have to be replaced."""
    shared: Header
    """The others."""


# Emptied when full, so that a peer can neither make it grow nor keep it useless.
_LIMIT = 1024
_heads: dict[bytes, Head] = {}


def _numbers(second: str) -> Match:
    lines = rb"\r\nMicro-Id: (\d{1,20})\r\n%b: (\d{1,20})\r\nContent-Length: (\d{1,8})\r\n\r\n"
    return re.compile(lines % second.encode()).match


_REQUEST, _REPLY = (_numbers("Timeout"), "Timeout"), (_numbers("X-Micro-Id"), "X-Micro-Id")


def known(data: bytes) -> Head | None:
    """Return the head that was learnt before with which the data begins, if there is one."""
    first = data.find(_FIRST)
    return _heads.get(data[:first]) if first > 0 else None


def like(head: Head, data: bytes) -> Message | None:
    """Return what data is that begins like a head, if it is exactly one message with that."""
    numbers = head.match(data, len(head.start))
    if numbers is None:
        return None
    id, other, length = numbers.groups()
    body = data[numbers.end() :]
    if len(body) != int(length):
        return None
    header = head.whole.copy()  # cheaper than one that has to grow
    header["Micro-Id"] = id.decode()
    header[head.second] = other.decode()
    header["Content-Length"] = length.decode()
    return Message(header, body, head.shared)


def learn(data: bytes, header: dict[str, str]) -> None:
    """Remember what the parser has made of this message's head, if its numbers end it."""
    first = data.find(_FIRST)
    start = data[:first]
    match, second = _REQUEST if data.startswith(b"POST ") else _REPLY
    numbers = match(data, first) if first > 0 else None
    if numbers is None:
        return
    # Where the head ended before, they are in the body.
    if numbers.end() + int(numbers[3]) != len(data) or b"\r\n\r\n" in start:
        return
    shared = Header(header)
    for name, number in zip(("Micro-Id", second, "Content-Length"), numbers.groups(), strict=True):
        if shared.pop(name, "") != number.decode():
            return  # it has this name twice
    if not _SPECIAL.isdisjoint(shared) or not _NAMES.isdisjoint(shared):
        return
    if len(_heads) >= _LIMIT:
        _heads.clear()
    _heads[start] = Head(start, match, second, dict(header), shared)
