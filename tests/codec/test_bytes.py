"""Tests of the bytes codec."""

from __future__ import annotations

from typing import Annotated, Any

import pytest

from shoal.codec import Codec
from shoal.codec.bytes import BytesCodec
from shoal.errors import BadRequest
from shoal.testing.conformance.codec import CodecConformance, Item


class TestConformance(CodecConformance):
    content_type = "application/octet-stream"
    samples = (
        (b"\x00\xff", bytes),
        (bytearray(b"a"), bytearray),
        (memoryview(b"abc"), memoryview),
        (b"a", Any),
        (b"a", object),
    )
    empty = ((bytes, b""), (Any, b""), (bytearray, bytearray()), (type(None), None))
    refused = ("text", None, 5, {"a": 1}, Item("x"), [1])
    refused_types = (str, Item, dict[str, int], Annotated[bytes, []])
    big = (b"\x00" * 1_000_000, bytes)

    def make(self) -> Codec:
        return BytesCodec()


def test_the_refusal_names_the_type_and_a_way_out() -> None:
    with pytest.raises(
        BadRequest, match=r"bytes, Item is wanted here: send it as application/json"
    ):
        BytesCodec().decode(b"", Item)
