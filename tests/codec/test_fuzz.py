"""Whatever arrives is a message of the hinted type, or a bad request."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.codec import Codec
from shoal.codec.json import JsonCodec
from shoal.codec.msgpack import MsgpackCodec
from shoal.codec.proto import ProtoCodec
from shoal.errors import BadRequest, NotFound
from shoal.testing.conformance.codec import TYPED, Defaults
from tests.codec.greeter import full_request, message
from tests.codec.test_json import Careful, Mixed, Person

HINTS: list[Any] = [hint for _, hint in TYPED]
HINTS += [Careful, Mixed, Person, Defaults, message("HelloRequest"), msgspec.Raw]

# The names and the values that types in HINTS look for, so that much of it nearly fits.
NAMES = st.sampled_from(
    (
        "id items name price notes mood blob parent extra x y age countryCode postCodes people item"
        " bigNumber counts place visited"
    ).split()
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(st.characters(codec="utf-8"), max_size=5)
    | st.sampled_from(["calm", "MERRY", "2024-02-29T23:59:59Z", "7", "AP8=", "NaN"])
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def check(codec: Codec, body: bytes, hint: Any) -> None:
    try:
        message = codec.decode(body, hint)
    except (BadRequest, NotFound):  # one of the types raises a NotFound of its own
        return
    codec.encode(message)


@given(VALUES, st.sampled_from(HINTS))
@settings(max_examples=400)
def test_json_that_nearly_fits(value: Any, hint: Any) -> None:
    check(JsonCodec(), msgspec.json.encode(value), hint)


@given(VALUES, st.sampled_from(HINTS))
@settings(max_examples=200)
def test_message_pack_that_nearly_fits(value: Any, hint: Any) -> None:
    try:
        body = msgspec.msgpack.encode(value)
    except OverflowError:
        return
    check(MsgpackCodec(), body, hint)


@given(st.binary(max_size=60), st.sampled_from(HINTS))
@settings(max_examples=300)
def test_any_bytes(body: bytes, hint: Any) -> None:
    check(JsonCodec(), body, hint)
    check(MsgpackCodec(), body, hint)


@given(st.data())
def test_protobuf_with_some_bytes_changed(data: st.DataObject) -> None:
    body = bytearray(full_request().SerializeToString())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    check(ProtoCodec(), bytes(body), message("HelloRequest"))


@pytest.mark.parametrize("hint", HINTS, ids=str)
def test_recursion_ends_in_time(hint: Any) -> None:
    for part in (b'{"parent":', b'{"extra":[', b'[{"a":', b'{"place":'):
        for depth in (50, 300, 500, 900, 5000):
            check(JsonCodec(), part * depth, hint)
            closing = part.translate(bytes.maketrans(b"{[", b"}]"), delete=b'":aceplrntx')[::-1]
            check(JsonCodec(), part * depth + b"null" + closing * depth, hint)
