"""Module _protowire reads and writes protobuf's tags and what follows them.

Source: protobuf.dev, "Encoding". Groups, which proto3 does not have, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
MASK = 2**64 - 1

Piece = int | bytes  # what follows a tag: a number, or bytes of a known length


def put(result: bytearray, number: int, wire: int, piece: Piece) -> None:
    """Add a tag and what follows it."""
    _varint(result, number << 3 | wire)
    if isinstance(piece, int):
        _varint(result, piece)
        return
    if wire == BYTES:
        _varint(result, len(piece))
    result += piece


def pieces(data: bytes) -> Iterator[tuple[int, int, Piece]]:
    """Yield field number, wire type and what follows, for each tag. Raises ValueError."""
    at = 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        number, wire = tag >> 3, tag & 7
        if not 0 < number < 2**29:
            raise ValueError(f"{number} is no field number")
        piece, at = _read(data, at, wire)
        yield number, wire, piece


def packed(data: bytes, wire: int) -> Iterator[Piece]:
    """Yield the values of a repeated field written in one piece. Raises ValueError."""
    at = 0
    while at < len(data):
        piece, at = _read(data, at, wire)
        yield piece


def _read(data: bytes, at: int, wire: int) -> tuple[Piece, int]:
    if wire == VARINT:
        return _read_varint(data, at)
    if wire == BYTES:
        size, at = _read_varint(data, at)
    elif wire in (FIXED64, FIXED32):
        size = 8 if wire == FIXED64 else 4
    else:
        raise ValueError(f"wire type {wire} is not supported")
    end = at + size
    if end > len(data):
        raise ValueError("the message is cut off")
    return data[at:end], end


def _varint(result: bytearray, value: int) -> None:
    while value > 0x7F:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise ValueError("the message is cut off")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & MASK, at
    raise ValueError("a number is longer than 64 bits")
