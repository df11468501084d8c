"""Module proto_rpc carries protobuf inside two netstrings, for peers that know no mucp headers.

Source: Go Micro v6, codec/protorpc: a length (uint32, big-endian) and the envelope, then a length
and the message. Events are bare protobuf.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import ClassVar

from shoal.codec import _tagged
from shoal.codec._envelope import Envelope, Envelopes
from shoal.codec.proto import ProtoCodec
from shoal.errors import BadRequest, InternalServerError

_LENGTH = struct.Struct(">I")


@dataclass(slots=True)
class _Head:
    """The envelope of requests and responses (envelope.proto); requests have no error."""

    service_method: str = field(default="", metadata={"proto": 1})
    seq: int = field(default=0, metadata={"proto": 2, "as": "fixed64"})
    error: str = field(default="", metadata={"proto": 3})


def pack_request(id: str | int, method: str, body: bytes) -> bytes:
    """Return a request; an id that is no decimal number becomes 0, as in Go Micro."""
    return _pack(_Head(service_method=method, seq=_seq(id)), body)


def unpack_request(data: bytes) -> Envelope:
    """Return what a request holds."""
    head, body = _unpack(data)
    return Envelope(head.seq, head.service_method, body=body)


def pack_response(id: str | int, error: str, body: bytes) -> bytes:
    """Return a response; one with an error has no body."""
    return _pack(_Head(seq=_seq(id), error=error), b"" if error else body)


def unpack_response(data: bytes) -> Envelope:
    """Return what a response holds."""
    head, body = _unpack(data)
    return Envelope(head.seq, head.service_method, head.error, body)


def _seq(id: str | int) -> int:
    text = str(id)
    if not text.isascii() or not text.isdigit() or len(text) > 19:
        return 0
    return int(text) if int(text) < 2**63 else 0


def _pack(head: _Head, body: bytes) -> bytes:
    try:
        first = _tagged.encode(head)
    except ValueError as error:
        raise InternalServerError(f"the envelope cannot be written: {error}") from error
    return b"".join((_LENGTH.pack(len(first)), first, _LENGTH.pack(len(body)), body))


def _unpack(data: bytes) -> tuple[_Head, bytes]:
    try:
        first, at = _netstring(data, 0)
        body, at = _netstring(data, at)
        if at != len(data):
            raise ValueError(f"{len(data) - at} bytes too many")
        return _tagged.decode(first, _Head), body
    except ValueError as error:
        raise BadRequest(f"the body is no proto-rpc envelope: {error}") from error


def _netstring(data: bytes, at: int) -> tuple[bytes, int]:
    """Return the netstring at a position, and the position behind it."""
    start = at + _LENGTH.size
    if start > len(data):
        raise ValueError("it is cut off")
    end = start + _LENGTH.unpack_from(data, at)[0]
    if end > len(data):
        raise ValueError("it is cut off")
    return data[start:end], end


class ProtoRpcCodec(ProtoCodec):
    """Protobuf whose requests and responses travel in `envelope`."""

    content_type = "application/proto-rpc"
    envelope: ClassVar = Envelopes(pack_request, unpack_request, pack_response, unpack_response)
