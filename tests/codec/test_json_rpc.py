"""Tests of the JSON-RPC codec and its envelope."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.codec import Codec
from shoal.codec._envelope import Envelope
from shoal.codec.json_rpc import JsonRpcCodec
from shoal.errors import BadRequest
from shoal.testing.conformance.codec import TYPED, CodecConformance, Defaults, Item, Order
from tests.codec.test_json import Plain

pack_request, unpack_request, pack_response, unpack_response = JsonRpcCodec.envelope

# The form of Go Micro v6.10; the error is its form of an error with a text put in.
REQUEST = b'{"params":[{"name":"J"}],"id":"0","method":"Greeter.Hello"}\n'
RESPONSE = b'{"id":"0","result":{"msg":"Hello J"},"error":null}\n'
ERROR = b'{"id":"","result":null,"error":"rpc: can\'t find method Nope"}\n'


class TestConformance(CodecConformance):
    """Events are bare values."""

    content_type = "application/json-rpc"
    samples = TYPED
    empty = ((Defaults, Defaults()), (dict, {}))
    needy = ((Order, "id, items"),)
    refused = (object(), Plain)
    refused_types = (Plain,)
    broken = ((b"[", list),)
    big = ([Item(f"item {i}") for i in range(40_000)], list[Item])

    def make(self) -> Codec:
        return JsonRpcCodec()


def test_the_bytes_are_those_of_go() -> None:
    assert pack_request("0", "Greeter.Hello", b'{"name":"J"}\n') == REQUEST
    assert pack_response("0", "", b'{"msg":"Hello J"}\n') == RESPONSE
    assert pack_response("", "rpc: can't find method Nope", b"") == ERROR


def test_the_bytes_of_go_are_read() -> None:
    assert unpack_request(REQUEST) == Envelope("0", "Greeter.Hello", body=b'{"name":"J"}')
    assert unpack_response(RESPONSE) == Envelope("0", body=b'{"msg":"Hello J"}')
    assert unpack_response(ERROR) == Envelope("", error="rpc: can't find method Nope")


def test_the_members_of_go_micro_v1_are_read() -> None:
    body = b'{"method":"Greeter.Hello","params":[{"name":"J"}],"id":7}\n'
    assert unpack_request(body) == Envelope(7, "Greeter.Hello", body=b'{"name":"J"}')


@pytest.mark.parametrize("id", ["a-b", "", "7", 7, 0, 2**63])
def test_an_id_keeps_its_type(id: str | int) -> None:
    request = unpack_request(pack_request(id, "A.B", b"1"))
    response = unpack_response(pack_response(request.id, "", b"1"))
    assert (type(response.id), response.id) == (type(id), id)


def test_null_is_no_body() -> None:
    for body in (
        b'{"method":"A.B","id":1}',
        b'{"method":"A.B","params":null,"id":null}',
        b'{"method":"A.B","params":[]}',
        b'{"method":"A.B","params":[null],"id":""}',
    ):
        assert unpack_request(body).body == b""
    assert pack_request("1", "A.B", b"") == b'{"params":[null],"id":"1","method":"A.B"}\n'


def test_an_error_has_no_result_and_always_a_text() -> None:
    assert pack_response("1", "no", b'{"a":1}') == b'{"id":"1","result":null,"error":"no"}\n'
    assert unpack_response(b'{"id":"1","error":""}').error == "unspecified error"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"null",
        b'{"method":1,"params":[{}],"id":"1"}',
        b'{"method":"A.B","params":{"name":"J"},"id":"1"}',
        b'{"method":"A.B","params":[{},{}],"id":"1"}',
        b'{"method":"A.B","params":[{}],"id":{}}',
        b'{"method":"A.B","params":[{}],"id":1.5}',
        b'{"method":"A.B","params":[{}],"id":true}',
        b'{"method":"\xff","params":[{}]}',
        REQUEST + b"x",
        REQUEST + REQUEST,
        b'{"params":' + b"[" * 100_000,
    ],
)
def test_what_is_no_request_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest, match="JSON-RPC request"):
        unpack_request(body)


@pytest.mark.parametrize(
    "body", [b"", b"1", b'{"id":"1","error":{}}', b'{"id":"1","error":5}', b'{"id":[]}']
)
def test_what_is_no_response_is_refused(body: bytes) -> None:
    with pytest.raises(BadRequest, match="JSON-RPC response"):
        unpack_response(body)


@given(
    st.text(st.characters(codec="utf-8")),
    st.recursive(
        st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text("a\"\\\n'ö"),
        lambda inner: st.lists(inner) | st.dictionaries(st.text("ab"), inner),
        max_leaves=10,
    ),
)
def test_any_method_and_body_pass(method: str, value: Any) -> None:
    codec, hint = JsonRpcCodec(), typing.cast(Any, Any)
    request = unpack_request(pack_request("1", method, codec.encode(value)))
    assert request.method == method
    assert codec.decode(request.body, hint) == value


@given(
    st.binary(max_size=100) | st.text(max_size=100).map(lambda text: text.encode(errors="replace"))
)
def test_garbage_is_a_bad_request(body: bytes) -> None:
    for unpack in (unpack_request, unpack_response):
        try:
            unpack(body)
        except BadRequest:
            continue
