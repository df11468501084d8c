"""Module _native_frames is the bytes of Shoal's own protocol: the preface, frames and headers.

The format is Shoal's (docs/protocol.md). Everything is in network byte order.
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from msgspec import Struct

from shoal.errors import BadRequest, TooLarge
from shoal.message import Header, canonical, clean
from shoal.transport._header import decide_nothing

MAGIC = b"\x89SHOAL\r\n"  # no other protocol begins so, and no line of text
VERSION = 1
METADATA = {"shoal-native": str(VERSION)}  # how a node says that it understands this

PREFACE = struct.Struct("!8sBxxxIII")  # magic, version, window, largest message, sessions
FRAME = struct.Struct("!IBBHII")  # length, type, flags, number, session, count
TOTAL = struct.Struct("!I")  # of a body that comes in pieces

MESSAGE, DATA, DEFINE, WINDOW, CLOSE, PING, PONG, GOAWAY = range(1, 9)
MORE = 1  # a piece of the body follows
ABORT = 2  # the message is not continued
RESTART = 1  # numbers begin again with 1

PIECE = 64 * 1024  # bytes of a body in one frame
MAX_HEADER = 64 * 1024  # bytes of the values of a message, and of a definition
MAX_HEADERS = 256
MAX_PAYLOAD = MAX_HEADER + TOTAL.size + PIECE
MAX_TEXT = 1024  # bytes of the sentence in CLOSE and GOAWAY
COST = 512  # what a frame uses of a window beside its payload: the least a message takes here
SHAPES = 1024  # numbers in use at a time in one direction
SHAPES_SIZE = 1024 * 1024  # bytes of their definitions

_REMEMBERED = 1024  # bytes of a shared header, or of the values of a message


class Violation(Exception):
    """The peer sent what no peer of this version sends."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one side takes, told in its preface."""

    max_message: int
    window: int = 512 * 1024
    sessions: int = 16 * 1024

    def preface(self) -> bytes:
        """Return the first bytes of this side."""
        return PREFACE.pack(MAGIC, VERSION, self.window, self.max_message, self.sessions)


def frame(
    kind: int, session: int = 0, count: int = 0, *, number: int = 0, flags: int = 0,
    payload: bytes = b"",
) -> bytes:  # fmt: skip
    """Return a whole frame."""
    return FRAME.pack(len(payload), kind, flags, number, session, count) + payload


def text_of(error: object) -> bytes:
    """Return a sentence as CLOSE and GOAWAY carry it."""
    return str(error).encode("utf-8", "replace")[:MAX_TEXT]


def values_of(header: dict[str, str]) -> bytes:
    """Return the values of a header as bytes. Raises TooLarge."""
    values: Iterable[str] = header.values()
    if not "".join(values).isprintable():
        values = map(clean, values)
    text = "\n".join(values).encode("utf-8", "replace")
    if len(text) > MAX_HEADER:
        raise TooLarge(f"a header of {len(text)} bytes is over the limit of {MAX_HEADER}")
    return text


class SentShapes:
    """The numbers this side has given to the headers it sends."""

    def __init__(self) -> None:
        self.numbers: dict[tuple[object, ...], int] = {(id(None),): 0}
        """By the identity of the shared header and the names of the others."""
        self._kept: list[Header | None] = []  # so that no other gets the identity
        self._size = 0

    def define(self, header: dict[str, str], shared: Header | None) -> tuple[int, bytes]:
        """Return a new number, and the frame that tells it.

        Raises BadRequest for a name that HTTP cannot carry, and TooLarge.
        """
        try:
            names = "\n".join(map(canonical, header))
            lines = "\n".join(f"{canonical(n)}\n{clean(v)}" for n, v in (shared or {}).items())
        except ValueError as error:
            raise BadRequest(str(error), id="shoal.transport") from None
        first = names.encode()
        payload = first + lines.encode("utf-8", "replace")
        if len(payload) > MAX_HEADER or max(len(header), len(shared or ())) > MAX_HEADERS:
            raise TooLarge(f"headers are over the limit of {MAX_HEADER} bytes")
        flags = 0
        if len(self.numbers) >= SHAPES or self._size + len(payload) > SHAPES_SIZE:
            self.__init__()  # type: ignore[misc]  # it is as new
            flags = RESTART
        number = len(self.numbers)
        self.numbers[(id(shared), *header)] = number
        self._kept.append(shared)
        self._size += len(payload)
        return number, frame(DEFINE, 0, len(first), number=number, flags=flags, payload=payload)


class Shape(Struct):
    """What the messages with one number have in common."""

    names: tuple[str, ...] = ()
    """Of each message's own headers."""
    whole: dict[str, str] = {}
    """All headers of the last message; most that follow have the same."""
    plain: Header | None = None
    """The headers that are the same in all messages, if they alone decide what one is for."""
    values: bytes | None = b""
    """The last message's own, None before the first."""

    def __repr__(self) -> str:
        return f"Shape({', '.join(self.names)})"  # values may be secret


class ReceivedShapes:
    """The headers the peer has given numbers to."""

    def __init__(self) -> None:
        self.known = [Shape()]
        self._size = 0

    def define(self, number: int, flags: int, count: int, payload: bytes) -> None:
        """Take a definition. Raises Violation."""
        if flags == RESTART:
            del self.known[1:]
            self._size = 0
        elif flags:
            raise Violation("unknown flags")
        self._size += len(payload)
        if number != len(self.known) or number >= SHAPES or self._size > SHAPES_SIZE:
            raise Violation("a definition out of order or over the limit")
        if len(payload) > MAX_HEADER or count > len(payload):
            raise Violation("a definition that is too long")
        try:
            names = tuple(canonical(name) for name in _lines(payload[:count]))
            lines = payload[count:]
            shared = _known(lines) if len(lines) <= _REMEMBERED else _shared(lines)
        except ValueError as error:
            raise Violation(f"a bad definition: {error}") from None
        if max(len(names), len(shared)) > MAX_HEADERS:
            raise Violation("a definition of too many headers")
        plain = shared.keys().isdisjoint(names) and decide_nothing(names)
        whole = {**shared, **dict.fromkeys(names, "")}
        values = None if names else b""
        self.known.append(Shape(names, whole, shared if plain else None, values))


@functools.lru_cache(1024)
def _known(data: bytes) -> Header:
    """Return the same object for the same bytes, whatever connection they come on."""
    return _shared(data)


def _shared(data: bytes) -> Header:
    lines = [clean(line) for line in _lines(data)]
    pairs = zip(lines[::2], lines[1::2], strict=True)
    return Header((canonical(name), value) for name, value in pairs)


def _lines(data: bytes) -> list[str]:
    return data.decode().split("\n") if data else []


def learn(shape: Shape, values: bytes) -> None:
    """Take in the values of a message, whose headers are then the whole. Raises Violation."""
    names = shape.names
    if not names:
        if values:
            raise Violation("values of a header that has none")
        return
    try:
        found = values.decode().split("\n")
    except ValueError:
        raise Violation("a header that is not UTF-8") from None
    if len(found) != len(names):
        raise Violation("a header with too many or too few values")
    for name, value in zip(names, found, strict=True):
        shape.whole[name] = clean(value)
    shape.values = values if len(values) <= _REMEMBERED else None
