"""The RPC protocol as functions from message to message."""

import pytest

from shoal import wire
from shoal.codec.json import JsonCodec
from shoal.codec.json_rpc import JsonRpcCodec
from shoal.errors import BadRequest, Error, Forbidden, Unavailable
from shoal.message import Message


def test_a_request_names_its_endpoint_for_every_generation() -> None:
    assert wire.request_header("greeter", "Greeter.Hello", wire.JSON) == {
        "Accept": "application/json",
        "Content-Type": "application/json",
        "Micro-Endpoint": "Greeter.Hello",
        "Micro-Method": "Greeter.Hello",
        "Micro-Service": "greeter",
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5000000000", 5.0),
        ("1", 1e-9),
        ("0", None),
        ("-1", None),
        ("soon", None),
        ("", None),
        ("٣", None),
        ("1.5", None),
        ("9" * 21, None),
    ],
)
def test_timeouts_are_nanoseconds_and_nonsense_is_none(text: str, seconds: float | None) -> None:
    assert wire.timeout({"Timeout": text}) == seconds


def test_what_is_left_of_a_timeout_is_never_nothing() -> None:
    assert wire.timeout_value(0.3) == "300000000"
    assert wire.timeout_value(-1) == "1"
    assert wire.timeout({}) is None


@pytest.mark.parametrize(
    ("header", "endpoint"),
    [
        ({"Micro-Endpoint": "A.B", "Micro-Method": "C.D"}, "A.B"),
        ({"Micro-Method": "C.D"}, "C.D"),
        ({"X-Micro-Endpoint": "E.F"}, "E.F"),
        ({"X-Micro-Method": "G.H"}, "G.H"),
        ({}, ""),
    ],
)
def test_endpoints_of_all_generations(header: dict[str, str], endpoint: str) -> None:
    assert wire.endpoint_of(header) == endpoint


@pytest.mark.parametrize(
    ("header", "legacy"),
    [
        ({}, True),
        ({"Content-Type": "application/json"}, True),
        ({"Micro-Target": "x", "Micro-Endpoint": "A.B"}, True),
        ({"Micro-Endpoint": "A.B"}, False),
        ({"Micro-Service": "a"}, False),
        ({"X-Micro-Service": "a"}, False),
        ({"Micro-Protocol": "mucp"}, False),
        ({"Micro-Topic": "t"}, False),
    ],
)
def test_which_requests_are_of_peers_without_headers(header: dict[str, str], legacy: bool) -> None:
    assert wire.is_legacy(header) is legacy


def test_a_reply_repeats_its_id_in_both_spellings() -> None:
    assert wire.reply_ids({"Micro-Id": "7"}) == {"Micro-Id": "7", "X-Micro-Id": "7"}
    assert wire.reply_ids({"X-Micro-Id": "7"}) == {"Micro-Id": "7", "X-Micro-Id": "7"}
    assert wire.reply_ids({}) == {}


def test_an_error_reply_has_the_requests_headers_and_the_error_twice() -> None:
    request = {"Micro-Id": "3", "Micro-Endpoint": "A.B", "Content-Type": "x", "User": "7"}
    reply = wire.error_reply(request, Forbidden("no", id="a"))
    text = '{"id":"a","code":403,"detail":"no","status":"Forbidden"}'
    assert reply.header == {
        "Micro-Id": "3",
        "Micro-Endpoint": "A.B",
        "Content-Type": "x",
        "X-Micro-Id": "3",
        "Micro-Error": text,
        "X-Micro-Error": text,
    }
    assert reply.body == b""


def test_the_body_of_a_reply_or_its_error() -> None:
    json, rpc = JsonCodec(), JsonRpcCodec()
    assert wire.reply_body(Message({"Content-Type": wire.JSON}, b"{}"), wire.JSON, json) == b"{}"
    assert wire.reply_body(Message({}, b"{}"), wire.JSON, json) == b"{}"
    with pytest.raises(Forbidden):
        wire.reply_body(Message({"Micro-Error": '{"code":403}'}), wire.JSON, json)
    with pytest.raises(Error, match="plain failure"):
        wire.reply_body(Message({"X-Micro-Error": "plain failure"}), wire.JSON, json)
    with pytest.raises(BadRequest, match="unsupported Content-Type"):
        body = b"unsupported Content-Type: text/xml"
        wire.reply_body(Message({"Content-Type": "text/plain"}, body), wire.JSON, json)
    body = b'{"id":"0","result":{"msg":"Hello J"},"error":null}\n'
    assert wire.reply_body(Message({}, body), rpc.content_type, rpc) == b'{"msg":"Hello J"}'
    with pytest.raises(Error, match="bad"):
        wire.reply_body(
            Message({}, b'{"id":"","result":null,"error":"bad"}'), rpc.content_type, rpc
        )


def test_the_content_type_for_a_node_follows_its_protocol() -> None:
    assert wire.node_content_type(wire.JSON, {"protocol": "mucp"}) == wire.JSON
    assert wire.node_content_type(wire.JSON, {}) == "application/json-rpc"
    assert wire.node_content_type(wire.PROTOBUF, {}) == "application/proto-rpc"
    assert wire.node_content_type("application/msgpack", {}) == "application/msgpack"
    with pytest.raises(Unavailable, match="grpc"):
        wire.node_content_type(wire.JSON, {"protocol": "grpc"})


def test_codecs_are_found_by_content_type_with_or_without_parameters() -> None:
    codecs = wire.Codecs([JsonCodec()])
    assert isinstance(codecs["application/json"], JsonCodec)
    assert isinstance(codecs["Application/JSON; charset=utf-8"], JsonCodec)
    with pytest.raises(BadRequest, match="application/json"):
        codecs["text/xml"]
    assert codecs.content_type({"a": 1}) == wire.JSON
