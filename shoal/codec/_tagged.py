"""Module _tagged is protobuf's wire format for dataclasses, without the protobuf library.

The fields carry their numbers: `name: str = field(default="", metadata={"proto": 1})`. Known types
are str, bytes, bool, int (int64), float (double), IntEnum, another such dataclass, a list of
those, and a dict from str, int or bool to those. `metadata={"proto": 2, "as": "uint64"}` (or
"fixed64") says how an int is written. Source: protobuf.dev, "Encoding".
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import struct
import typing
from collections.abc import Callable, Mapping
from typing import Any

from shoal.codec._protowire import BYTES, FIXED64, MASK, VARINT, Piece, packed, pieces, put

_DEPTH = 100  # as protobuf's own parsers have it


@dataclasses.dataclass(frozen=True, slots=True)
class _Kind:
    """How one value of a type is written."""

    wire: int
    pack: Callable[[Any], Piece]
    unpack: Callable[[Any, int], Any]  # what follows the tag, the depth it is at
    blank: Callable[[], Any]


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    """A field of a dataclass: its number, the form it is collected in, and its kind."""

    name: str
    number: int
    form: str  # one, list or dict
    kind: _Kind
    key: _Kind | None = None

    def blank(self) -> Any:
        """Return the value of an absent field."""
        if self.form == "one":
            return self.kind.blank()
        return [] if self.form == "list" else {}


def is_tagged(kind: object) -> bool:
    """Whether a type hint is a dataclass all of whose fields carry a number."""
    return (
        isinstance(kind, type)
        and dataclasses.is_dataclass(kind)
        and all("proto" in field.metadata for field in dataclasses.fields(kind))
    )


def encode(message: Any) -> bytes:
    """Return a message's bytes; a field that has its type's zero value is left out, as in proto3.

    Raises TypeError, ValueError or OverflowError for a value that is not of its field's type.
    """
    result = bytearray()
    kind: Any = type(message)
    for field in _fields(kind):
        value = getattr(message, field.name)
        if field.form == "one":
            if value != field.kind.blank():
                _put(result, field.number, field.kind, value)
        elif field.key is None:
            for item in value:
                _put(result, field.number, field.kind, item)
        else:
            for key, item in value.items():
                entry = bytearray()
                _put(entry, 1, field.key, key)
                _put(entry, 2, field.kind, item)
                _put(result, field.number, _ENTRY, entry)
    return bytes(result)


def decode(data: bytes, into: Any, depth: int = 0) -> Any:
    """Return the message the bytes hold; unknown fields are passed over.

    Raises ValueError for what is no such message.
    """
    if depth >= _DEPTH:
        raise ValueError("the message is nested too deeply")
    fields = {field.number: field for field in _fields(into)}
    # What is absent has its zero value, which need not be the default of the dataclass.
    found = {field.name: field.blank() for field in fields.values()}
    for number, wire, piece in pieces(data):
        field = fields.get(number)
        if field is None:
            continue
        try:
            _collect(found, field, wire, piece, depth)
        except ValueError as error:
            raise ValueError(f"{into.__name__}.{field.name}: {error}") from error
    return into(**found)


def _collect(found: dict[str, Any], field: _Field, wire: int, piece: Piece, depth: int) -> None:
    """Put what follows one tag into the field it is of."""
    kind = field.kind
    if field.form == "dict":
        key, item = _entry(field, wire, piece, depth)
        found[field.name][key] = item
    elif field.form == "list":
        items = found[field.name]
        if wire == BYTES and kind.wire != BYTES:
            assert isinstance(piece, bytes)
            items.extend(kind.unpack(one, depth) for one in packed(piece, kind.wire))
        else:
            items.append(kind.unpack(_checked(kind, wire, piece), depth))
    else:
        found[field.name] = kind.unpack(_checked(kind, wire, piece), depth)


def _entry(field: _Field, wire: int, piece: Piece, depth: int) -> tuple[Any, Any]:
    assert field.key is not None
    key, item = field.key.blank(), field.kind.blank()
    for number, inner, part in pieces(typing.cast(bytes, _checked(_ENTRY, wire, piece))):
        if number == 1:
            key = field.key.unpack(_checked(field.key, inner, part), depth)
        elif number == 2:
            item = field.kind.unpack(_checked(field.kind, inner, part), depth)
    return key, item


def _put(result: bytearray, number: int, kind: _Kind, value: Any) -> None:
    put(result, number, kind.wire, kind.pack(value))


def _checked(kind: _Kind, wire: int, piece: Piece) -> Piece:
    if wire != kind.wire:
        raise ValueError(f"wire type {kind.wire} expected, got {wire}")
    return piece


# The kinds of values


def _signed(piece: int, depth: int) -> int:
    return piece - 2**64 if piece >= 2**63 else piece


def _pack_int64(value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise OverflowError(f"{value} is no int64")
    return value & MASK


def _pack_uint64(value: int) -> int:
    if not 0 <= value < 2**64:
        raise OverflowError(f"{value} is no uint64")
    return value


def _fixed(form: str) -> tuple[Callable[[Any], bytes], Callable[[Any, int], Any]]:
    shape = struct.Struct(form)

    def pack(value: Any) -> bytes:
        try:
            return shape.pack(value)
        except struct.error as error:
            raise ValueError(str(error)) from error

    return pack, lambda piece, depth: shape.unpack(piece)[0]


def _text(piece: bytes, depth: int) -> str:
    return piece.decode()


def _pack_bytes(value: Any) -> bytes:
    return memoryview(value).tobytes()


_ENTRY = _Kind(BYTES, _pack_bytes, lambda piece, depth: piece, bytes)
_KINDS: dict[Any, _Kind] = {
    str: _Kind(BYTES, lambda value: str.encode(value), _text, str),
    bytes: _ENTRY,
    bool: _Kind(VARINT, int, lambda piece, depth: piece != 0, bool),
    int: _Kind(VARINT, _pack_int64, _signed, int),
    float: _Kind(FIXED64, *_fixed("<d"), float),
}
_INTEGERS = {
    "int64": _KINDS[int],
    "uint64": _Kind(VARINT, _pack_uint64, lambda piece, depth: piece, int),
    "fixed64": _Kind(FIXED64, *_fixed("<Q"), int),
}


@functools.lru_cache(1024)
def _fields(kind: Any) -> tuple[_Field, ...]:
    """Return the fields of a dataclass. Raises TypeError for a type this module does not know."""
    hints = typing.get_type_hints(kind)
    return tuple(
        _field(field.name, field.metadata, hints[field.name]) for field in dataclasses.fields(kind)
    )


def _field(name: str, metadata: Mapping[str, Any], hint: Any) -> _Field:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    written = metadata.get("as", "int64")
    if origin is list:
        return _Field(name, metadata["proto"], "list", _kind(arguments[0], written))
    if origin is dict:
        key, item = (_kind(argument, written) for argument in arguments)
        return _Field(name, metadata["proto"], "dict", item, key)
    return _Field(name, metadata["proto"], "one", _kind(hint, written))


def _kind(hint: Any, written: str) -> _Kind:
    if hint is int:
        return _INTEGERS[written]
    if hint in _KINDS:
        return _KINDS[hint]
    if isinstance(hint, type) and issubclass(hint, enum.IntEnum):
        return _Kind(VARINT, _pack_int64, lambda piece, depth: _member(hint, piece), lambda: 0)
    if is_tagged(hint):
        return _Kind(BYTES, encode, lambda piece, depth: decode(piece, hint, depth + 1), hint)
    raise TypeError(f"{hint} has no form in protobuf here")


def _member(kind: Any, piece: int) -> Any:
    value = _signed(piece, 0)
    try:
        return kind(value)
    except ValueError:
        return value  # proto3 keeps numbers it has no name for
