"""Tests of the MessagePack codec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from shoal.codec import Codec
from shoal.codec.msgpack import MsgpackCodec
from shoal.errors import BadRequest
from shoal.testing.conformance.codec import TYPED, CodecConformance, Item, Order
from tests.codec.greeter import full_request, message
from tests.codec.test_json import BLANKS, Needy, Person, Plain


class TestConformance(CodecConformance):
    content_type = "application/msgpack"
    samples = (
        *TYPED,
        (full_request(), message("HelloRequest")),
        (Person(name="x", homeTown="y"), Person),
        ({"a": b"raw"}, dict[str, Any]),
    )
    empty = BLANKS
    needy = ((Order, "id, items"), (Needy, "x"))
    refused = (object(), {"a": Plain()}, 2**64, "\ud800")
    refused_types = (Plain, Iterator, "Order", Order | Item)
    broken = (
        (b"\xc1", Any),
        (b"\x93\x01", list),
        (b"\x01\x02", int),
        (b"\xa1\xff", str),
        (b"\x81\x80\x01", dict),
    )
    big = ([Item(f"item {i}") for i in range(60_000)], list[Item])

    def make(self) -> Codec:
        return MsgpackCodec()


def test_the_bytes_are_message_pack() -> None:
    assert MsgpackCodec().encode({"name": "John"}).hex() == "81a46e616d65a44a6f686e"


def test_a_complaint_names_the_field() -> None:
    codec = MsgpackCodec()
    with pytest.raises(BadRequest, match=r"^Item\.price: expected float, got str$"):
        codec.decode(codec.encode({"name": "a", "price": "x"}), Item)


def test_null_leaves_a_field_as_it_is() -> None:
    codec = MsgpackCodec()
    assert codec.decode(codec.encode({"id": 1, "items": None}), Order) == Order(1, [])
