"""Tests of the text codec."""

from __future__ import annotations

from typing import Any

from shoal.codec import Codec
from shoal.codec.text import TextCodec
from shoal.testing.conformance.codec import CodecConformance, Item


class TestConformance(CodecConformance):
    content_type = "text/plain"
    samples = (("räksmörgås \U0001f990\x00", str), ("a", Any), ("", object))
    empty = ((str, ""), (Any, ""), (type(None), None))
    refused = (b"bytes", None, 5, {"a": 1}, Item("x"), "\ud800")
    refused_types = (bytes, Item, dict[str, int], int)
    broken = ((b"\xff", str), (b"\xed\xa0\x80", Any))
    big = ("ö" * 500_000, str)

    def make(self) -> Codec:
        return TextCodec()
