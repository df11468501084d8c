"""Tests of the protobuf codec."""

from __future__ import annotations

import dataclasses
from types import GenericAlias
from typing import Any

import msgspec
import pytest
from google.protobuf import descriptor_pb2

from shoal.codec import Codec
from shoal.codec.proto import ProtoCodec
from shoal.errors import BadRequest, InternalServerError
from shoal.testing.conformance.codec import CodecConformance, Item
from tests.codec.greeter import full_request, message

Health = dataclasses.make_dataclass(
    "Health", [("status", str, dataclasses.field(default="", metadata={"proto": 1}))]
)


class TestConformance(CodecConformance):
    content_type = "application/protobuf"
    samples = (
        (full_request(), message("HelloRequest")),
        (full_request(), message("HelloRequest") | None),
        (message("CountReply")(i=-1), message("CountReply")),
        (Health("ok"), Health),
        (Health("ok"), Health | None),
    )
    empty = (
        (message("HelloRequest"), message("HelloRequest")()),
        (message("Place") | None, message("Place")()),
        (Health, Health()),
        (type(None), None),
    )
    refused = ({"a": 1}, "text", 5, Item("x"), object(), Health(5), [full_request()])
    refused_types = (
        dict,
        str,
        Any,
        object,
        Item,
        GenericAlias(list, (message("Place"),)),
        Item | None,
    )
    broken = (
        (b"\xff", message("HelloRequest")),
        (b"\x0a\x05ab", message("HelloRequest")),
        (b"\x0a\x01\xff", message("HelloRequest")),
        (b"\x0a" * 1000, message("HelloRequest")),
        (b"\x0a\x01\xff", Health),
    )
    big = (message("HelloRequest")(blob=b"\x00" * 1_000_000), message("HelloRequest"))

    def make(self) -> Codec:
        return ProtoCodec()


def test_the_bytes_are_those_of_go() -> None:
    # Captured from Go Micro v6.10: HealthRequest{service:"x"}, HealthResponse{status:"ok"}.
    assert ProtoCodec().encode(message("HelloRequest")(name="x")) == bytes.fromhex("0a0178")
    assert ProtoCodec().encode(Health("ok")) == bytes.fromhex("0a026f6b")
    assert ProtoCodec().decode(bytes.fromhex("0a026f6b"), Health) == Health("ok")


def test_no_message_is_an_empty_body() -> None:
    assert ProtoCodec().encode(None) == b""


def test_a_refusal_says_what_to_do() -> None:
    with pytest.raises(BadRequest, match=r"Item is none: send it as application/json$"):
        ProtoCodec().decode(b"", Item)
    with pytest.raises(InternalServerError, match=r"Item is none: .* make it a protobuf message$"):
        ProtoCodec().encode(Item("x"))


def test_a_message_that_misses_what_it_must_have_is_refused() -> None:
    name_part = descriptor_pb2.UninterpretedOption.NamePart
    with pytest.raises(InternalServerError, match="NamePart cannot be sent"):
        ProtoCodec().encode(name_part())


def test_unknown_fields_survive_a_hop() -> None:
    body = full_request().SerializeToString()
    passed = ProtoCodec().decode(body, message("CountReply"))
    assert isinstance(passed, message("CountReply"))
    assert ProtoCodec().decode(body, msgspec.Raw) == msgspec.Raw(body)
