"""Tests of the proto-rpc codec and its envelope."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.codec import Codec
from shoal.codec._envelope import Envelope
from shoal.codec.proto_rpc import ProtoRpcCodec
from shoal.errors import BadRequest, InternalServerError
from shoal.testing.conformance.codec import CodecConformance, Item
from tests.codec.greeter import full_request, message

pack_request, unpack_request, pack_response, unpack_response = ProtoRpcCodec.envelope

# Captured from Go Micro v6.10: Debug.Health with id 1, its reply, and an error.
REQUEST = bytes.fromhex("00000017 0a0c44656275672e4865616c7468 110100000000000000 00000003 0a0178")
RESPONSE = bytes.fromhex("00000009 110100000000000000 00000004 0a026f6b")
ERROR = bytes.fromhex(
    "0000001d 1a1b7270633a2063616e27742066696e64206d6574686f64204e6f7065 00000000"
)
# By the source of Go Micro v1.18 (not captured), which keeps zero fields: id 0, an empty error.
V1_RESPONSE = bytes.fromhex("0000000d 0a00 110000000000000000 1a00 00000000")


class TestConformance(CodecConformance):
    """Events are bare protobuf."""

    content_type = "application/proto-rpc"
    samples = ((full_request(), message("HelloRequest")),)
    empty = ((message("HelloRequest"), message("HelloRequest")()),)
    refused = ({"a": 1}, Item("x"))
    refused_types = (dict, Item)
    broken = ((b"\xff", message("HelloRequest")),)
    big = (message("HelloRequest")(blob=b"\x00" * 1_000_000), message("HelloRequest"))

    def make(self) -> Codec:
        return ProtoRpcCodec()


def test_the_bytes_are_those_of_go() -> None:
    assert pack_request("1", "Debug.Health", bytes.fromhex("0a0178")) == REQUEST
    assert pack_response("1", "", bytes.fromhex("0a026f6b")) == RESPONSE
    assert pack_response("", "rpc: can't find method Nope", b"") == ERROR


def test_the_bytes_of_go_are_read() -> None:
    assert unpack_request(REQUEST) == Envelope(1, "Debug.Health", body=bytes.fromhex("0a0178"))
    assert unpack_response(RESPONSE) == Envelope(1, body=bytes.fromhex("0a026f6b"))
    assert unpack_response(ERROR) == Envelope(0, error="rpc: can't find method Nope")
    assert unpack_response(V1_RESPONSE) == Envelope(0)


@pytest.mark.parametrize(
    ("id", "seq"),
    [
        ("7", 7),
        (7, 7),
        (str(2**63 - 1), 2**63 - 1),
        ("", 0),
        ("a1b2", 0),
        ("-1", 0),
        (str(2**63), 0),
        ("9" * 5000, 0),
        ("\u0661", 0),
        ("1.5", 0),
    ],
)
def test_an_id_that_is_no_number_becomes_zero(id: str | int, seq: int) -> None:
    assert unpack_request(pack_request(id, "A.B", b"")).id == seq


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\x00",
        REQUEST[:4],
        REQUEST[:20],
        REQUEST[:-1],
        REQUEST[:27],
        REQUEST + b"\x00",
        b"\xff\xff\xff\xff",
        bytes.fromhex("00000002 0aff 00000000"),
        bytes.fromhex("00000003 0a01ff 00000000"),
        bytes.fromhex("00000002 1001 00000000"),
    ],
)
def test_what_is_no_envelope_is_refused(body: bytes) -> None:
    for unpack in (unpack_request, unpack_response):
        with pytest.raises(BadRequest, match="no proto-rpc envelope"):
            unpack(body)


def test_a_method_that_cannot_be_written_is_refused() -> None:
    with pytest.raises(InternalServerError, match="envelope"):
        pack_request("1", "\ud800", b"")


@given(st.integers(0, 2**63 - 1), st.text("aö\x00.", max_size=200), st.binary(max_size=300))
def test_any_request_passes(id: int, method: str, body: bytes) -> None:
    assert unpack_request(pack_request(id, method, body)) == Envelope(id, method, body=body)


@given(st.binary(max_size=100))
def test_garbage_is_a_bad_request(body: bytes) -> None:
    try:
        unpack_request(body)
    except BadRequest:
        return
