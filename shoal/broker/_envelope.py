"""Module _envelope is Go Micro's JSON form of an event, `{"Header":{...},"Body":"<base64>"}`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from shoal.errors import BadRequest
from shoal.message import Message, canonical, clean

ID = "shoal.broker"


class _Envelope(msgspec.Struct):
    # Names and order are Go Micro's (broker.Message through encoding/json, v0.x to v6).
    header: dict[str, str | None] | msgspec.UnsetType | None = msgspec.field(
        name="Header", default=msgspec.UNSET
    )
    body: bytes | msgspec.UnsetType | None = msgspec.field(name="Body", default=msgspec.UNSET)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Envelope).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


def encode(header: Mapping[str, str], body: bytes) -> bytes:
    """Return the JSON of an event. Raises BadRequest for a header that is no text."""
    try:
        return _encode({"Header": header, "Body": body})
    except UnicodeEncodeError as error:
        raise BadRequest(f"a header holds no valid text: {error}", id=ID) from None


def decode(data: bytes) -> Message:
    """Return the event some JSON stands for, with its header as it was sent.

    Members are known in any case and null is empty, as in Go. Raises BadRequest saying what is
    wrong with it.
    """
    try:
        envelope = _decode(data)
        if envelope.header is msgspec.UNSET or envelope.body is msgspec.UNSET:
            envelope = msgspec.convert(_by_go_names(data), _Envelope)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadRequest(f"it is no event: {error}", id=ID) from None
    header = {name: value or "" for name, value in (envelope.header or {}).items()}
    return Message(header, envelope.body or b"")


def _by_go_names(data: bytes) -> dict[str, Any]:
    known = {"header": "Header", "body": "Body"}
    return {
        known[name.lower()]: msgspec.json.decode(value)
        for name, value in _decode_members(data).items()
        if name.lower() in known
    }


def sendable(header: Mapping[str, str]) -> dict[str, str]:
    """Return a header in the form all brokers carry; raises BadRequest naming what is wrong."""
    result = {}
    for name, value in header.items():
        try:
            result[canonical(name)] = clean(value)
        except ValueError as error:
            raise BadRequest(str(error), id=ID) from None
    return result


def received(header: Mapping[str, str]) -> dict[str, str]:
    """Return a header that came from outside with canonical names, without what has none.

    Go Micro v4.10 and later spell `Micro-ID`, v1.18 and earlier have names like `:topic`.
    """
    result = {}
    for name, value in header.items():
        try:
            result[canonical(name)] = clean(value)
        except ValueError:
            continue
    return result
