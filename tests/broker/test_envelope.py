"""Tests of Go Micro's JSON form of an event."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.broker._envelope import decode, encode, received, sendable
from shoal.errors import BadRequest

TEXT = st.text(st.characters(codec="utf-8"))


def test_an_event_is_written_as_go_micro_writes_it() -> None:
    header = {
        "Content-Type": "application/json",
        "Micro-ID": "98ef16c5-5bf2-4968-9f36-609288e05329",
        "Micro-Topic": "events",
    }
    assert encode(header, b'{"msg":"hi"}\n') == (  # Go Micro v6.10
        b'{"Header":{"Content-Type":"application/json",'
        b'"Micro-ID":"98ef16c5-5bf2-4968-9f36-609288e05329","Micro-Topic":"events"},'
        b'"Body":"eyJtc2ciOiJoaSJ9Cg=="}'
    )


@given(st.dictionaries(TEXT, TEXT), st.binary())
def test_what_is_written_is_read_again(header: dict[str, str], body: bytes) -> None:
    message = decode(encode(header, body))
    assert (message.header, message.body) == (header, body)


@given(st.one_of(st.binary(), TEXT.map(str.encode)))
def test_any_bytes_are_an_event_or_a_bad_request(data: bytes) -> None:
    with contextlib.suppress(BadRequest):
        decode(data)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["Header", "header", "BODY", "x"]), inner)
    ),
)


@given(_JSON)
def test_any_json_is_an_event_or_a_bad_request(value: object) -> None:
    with contextlib.suppress(BadRequest):
        message = decode(json.dumps(value).encode())
        assert all(isinstance(one, str) for pair in message.header.items() for one in pair)
        assert isinstance(message.body, bytes)


def test_a_header_that_is_no_text_is_refused() -> None:
    with pytest.raises(BadRequest):
        encode({"Kind": "\ud800"}, b"")


def test_names_are_canonical_and_what_is_no_name_is_dropped() -> None:
    assert received({"Micro-ID": "1", ":topic": "x", "a b": "y", "": "z", "x-Kind": " v\n"}) == {
        "Micro-Id": "1",
        "X-Kind": "v",
    }


def test_a_name_no_broker_could_carry_is_refused() -> None:
    assert sendable({"micro-id": "1", "Kind": "a\r\nb"}) == {"Micro-Id": "1", "Kind": "a  b"}
    for name in ("a b", "", ":topic", "größe"):
        with pytest.raises(BadRequest):
            sendable({name: "x"})
