"""Module json_rpc carries messages inside JSON-RPC 1.0, for peers that know no mucp headers.

Source: Go Micro v6, codec/jsonrpc. Events are bare JSON.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from shoal.codec._envelope import Envelope, Envelopes
from shoal.codec._hooks import MISFITS
from shoal.codec.json import JsonCodec
from shoal.errors import BadRequest

_NULL = b"null"


class _Request(msgspec.Struct):
    params: list[msgspec.Raw] | None = None
    id: str | int | None = None
    method: str = ""


class _Response(msgspec.Struct):
    id: str | int | None = None
    result: msgspec.Raw = msgspec.Raw(_NULL)
    error: str | None = None


_encode = msgspec.json.Encoder().encode
_requests = msgspec.json.Decoder(_Request)
_responses = msgspec.json.Decoder(_Response)


def pack_request(id: str | int, method: str, body: bytes) -> bytes:
    """Return a request; an id is sent as a string, as Go Micro has it since v0.20."""
    return _encode(_Request([_raw(body)], id, method)) + b"\n"


def unpack_request(data: bytes) -> Envelope:
    """Return what a request holds."""
    try:
        request = _requests.decode(data)
    except MISFITS as error:
        raise BadRequest(f"the body is no JSON-RPC request: {error}") from error
    params = request.params or []
    if len(params) > 1:
        raise BadRequest(f"a JSON-RPC request has one parameter here, not {len(params)}")
    id = "" if request.id is None else request.id
    return Envelope(id, request.method, body=_body(params[0]) if params else b"")


def pack_response(id: str | int, error: str, body: bytes) -> bytes:
    """Return a response, with the id in the type the request had it."""
    return _encode(_Response(id, _raw(b"" if error else body), error or None)) + b"\n"


def unpack_response(data: bytes) -> Envelope:
    """Return what a response holds."""
    try:
        response = _responses.decode(data)
    except MISFITS as error:
        raise BadRequest(f"the body is no JSON-RPC response: {error}") from error
    # An error without a text is one all the same; the words are Go Micro's.
    text = "unspecified error" if response.error == "" else response.error or ""
    id = "" if response.id is None else response.id
    return Envelope(id, error=text, body=_body(response.result))


def _raw(body: bytes) -> msgspec.Raw:
    return msgspec.Raw(body.strip() or _NULL)


def _body(raw: msgspec.Raw) -> bytes:
    body = bytes(raw)
    return b"" if body == _NULL else body  # to Go the same: the message stays as it is


class JsonRpcCodec(JsonCodec):
    """JSON whose requests and responses travel in `envelope`."""

    content_type = "application/json-rpc"
    envelope: ClassVar = Envelopes(pack_request, unpack_request, pack_response, unpack_response)
