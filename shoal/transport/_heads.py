"""Module _heads knows the heads of messages again that differ from others only in their numbers.

Calls of one endpoint between two peers have the same head but for id, time and length, and to
parse the rest of it anew is a third of what a small call costs its receiver. What is learnt here
was accepted by the parser before, byte for byte; every other message goes to the parser.
"""

from __future__ import annotations

import re

from shoal.message import Header, Message

LARGEST = 16 * 1024  # bytes of a message for which it is worth while
_FIRST = b"\r\nMicro-Id: "
_NUMBERS = re.compile(
    rb"\r\nMicro-Id: (\d{1,20})\r\n(?:X-Micro-Id: (\d{1,20})\r\n)?(?:Timeout: (\d{1,20})\r\n)?"
    rb"Content-Length: (\d{1,8})\r\n\r\n"
)
_NAMES = ("Micro-Id", "X-Micro-Id", "Timeout", "Content-Length")
# Headers that say something of the connection: whoever sends them is listened to each time.
_SPECIAL = frozenset(("Connection", "Expect", "Transfer-Encoding", "Upgrade"))

# Emptied when full, so that a peer can neither make it grow nor keep it useless.
_LIMIT = 1024
_heads: dict[bytes, Header] = {}


def known(data: bytes) -> Message | None:
    """Return what the data is if it is exactly one message whose head was learnt before."""
    first = data.find(_FIRST)
    shared = _heads.get(data[:first]) if first > 0 else None
    numbers = None if shared is None else _NUMBERS.match(data, first)
    if shared is None or numbers is None:
        return None
    id, other_id, timeout, length = numbers.groups()
    body = data[numbers.end() :]
    if len(body) != int(length):
        return None
    header = {**shared, "Micro-Id": id.decode(), "Content-Length": length.decode()}
    if timeout is not None:
        header["Timeout"] = timeout.decode()
    if other_id is not None:
        header["X-Micro-Id"] = other_id.decode()
    return Message(header, body, shared)


def learn(data: bytes, header: dict[str, str]) -> None:
    """Remember what the parser has made of this message's head, if its numbers end it."""
    first = data.find(_FIRST)
    numbers = _NUMBERS.match(data, first) if first > 0 else None
    start = data[:first]
    # Where the head ended before, they are in the body.
    if numbers is None or numbers.end() + int(numbers[4]) != len(data) or b"\r\n\r\n" in start:
        return
    shared = Header(header)
    for name, number in zip(_NAMES, numbers.groups(), strict=True):
        if number is not None and shared.pop(name, "") != number.decode():
            return  # it has this name twice
    if not _SPECIAL.isdisjoint(shared) or not shared.keys().isdisjoint(_NAMES):
        return
    if len(_heads) >= _LIMIT:
        _heads.clear()
    _heads[start] = shared
