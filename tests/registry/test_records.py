"""Tests of records as Go Micro's JSON."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import BadRequest
from shoal.registry import Endpoint, Node, Record, Value, _records

# As an etcd of Go Micro v6 holds it.
GO_JSON = (
    b'{"name":"helloworld","version":"1.0.0","metadata":null,"endpoints":[{"request":{"name":"Req",'
    b'"type":"Req","values":[{"name":"name","type":"string","values":null}]},"response":{"name":'
    b'"Rsp","type":"Rsp","values":[{"name":"msg","type":"string","values":null}]},"metadata":{},'
    b'"name":"Greeter.Hello"}],"nodes":[{"metadata":{"protocol":"mucp","transport":"http"},'
    b'"id":"helloworld-1","address":"10.0.0.5:8080"}]}'
)
RECORD = Record(
    "helloworld",
    "1.0.0",
    (Node("helloworld-1", "10.0.0.5:8080", {"protocol": "mucp", "transport": "http"}),),
    (
        Endpoint(
            "Greeter.Hello",
            Value("Req", "Req", (Value("name", "string"),)),
            Value("Rsp", "Rsp", (Value("msg", "string"),)),
        ),
    ),
)


def test_go_micros_json_is_read() -> None:
    assert _records.decode(GO_JSON) == RECORD


def test_go_micros_json_is_written() -> None:
    assert _records.encode(RECORD).replace(b'"metadata":{},"end', b'"metadata":null,"end') == (
        GO_JSON
    )


@pytest.mark.parametrize("nothing", [None, {}, []])
def test_nothing_is_written_in_three_ways(nothing: object) -> None:
    value = {"name": "a", "version": "1", "nodes": nothing, "endpoints": nothing}
    assert _records.from_go({**value, "metadata": nothing}) == Record("a", "1")


def test_names_of_members_may_have_any_case() -> None:
    value = {
        "Name": "a",
        "VERSION": "1",
        "Nodes": [{"Id": "n", "Address": "h:1", "METADATA": {"Key": "v"}}],
        "Endpoints": [{"NAME": "E", "Request": {"Name": "R", "Type": "T", "Values": None}}],
    }
    node, endpoint = Node("n", "h:1", {"Key": "v"}), Endpoint("E", Value("R", "T"))
    assert _records.from_go(value) == Record("a", "1", (node,), (endpoint,))


def test_unknown_members_and_nil_pointers_are_ignored() -> None:
    value = {"name": "a", "nodes": [None, {"id": "n", "address": "h:1", "x": 1}], "new": [1]}
    assert _records.from_go(value).nodes == (Node("n", "h:1"),)


@pytest.mark.parametrize(
    ("address", "port", "expected"),
    [
        ("10.0.0.5", 8080, "10.0.0.5:8080"),
        ("fd00::5", 8080, "[fd00::5]:8080"),
        ("[fd00::5]", 8080, "[fd00::5]:8080"),
        ("10.0.0.5:8080", 8080, "10.0.0.5:8080"),
        ("10.0.0.5:8080", 0, "10.0.0.5:8080"),
        ("10.0.0.5:8080", None, "10.0.0.5:8080"),
        ("queue.of.nats", 0, "queue.of.nats"),
    ],
)
def test_host_and_port_of_old_versions_are_joined(
    address: str, port: int | None, expected: str
) -> None:
    value = {"name": "a", "nodes": [{"id": "n", "address": address, "port": port}]}
    assert _records.from_go(value).nodes[0].address == expected


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"name": "x", "type": "x"}
    for _ in range(levels):
        value = {"name": "x", "type": "x", "values": [value]}
    return value


NODE = {"id": "n", "address": "h:1"}


@pytest.mark.parametrize(
    ("value", "member"),
    [
        ([], "record"),
        ("text", "record"),
        (None, "record"),
        ({}, "name"),
        ({"name": 7}, "name"),
        ({"name": "a", "version": 1}, "version"),
        ({"name": "a", "metadata": {"k": 1}}, "metadata.k"),
        ({"name": "a", "metadata": ["k"]}, "metadata"),
        ({"name": "a", "nodes": {"k": 1}}, "nodes"),
        ({"name": "a", "nodes": ["n"]}, r"nodes\[0\]"),
        ({"name": "a", "nodes": [NODE, {"id": "n"}]}, r"nodes\[1\]"),
        ({"name": "a", "nodes": [{"id": 1, "address": "h:1"}]}, r"nodes\[0\].id"),
        ({"name": "a", "nodes": [{**NODE, "port": "1"}]}, r"nodes\[0\].port"),
        ({"name": "a", "nodes": [{**NODE, "port": 99999}]}, r"nodes\[0\].port"),
        ({"name": "a", "nodes": [{**NODE, "metadata": {"k": []}}]}, r"nodes\[0\].metadata.k"),
        ({"name": "a", "endpoints": [{"name": 1}]}, r"endpoints\[0\].name"),
        ({"name": "a", "endpoints": [{"request": []}]}, r"endpoints\[0\].request"),
        ({"name": "a", "endpoints": [{"request": deep(40)}]}, "deeper"),
        (
            {"name": "a", "endpoints": [{"response": {"values": [{"type": 1}]}}]},
            r"endpoints\[0\].response.values\[0\].type",
        ),
    ],
)
def test_what_is_wrong_is_named(value: object, member: str) -> None:
    with pytest.raises(BadRequest, match=f"^{member}:|{member}"):
        _records.decode(json.dumps(value))


@pytest.mark.parametrize("data", [b"", b"{", b"[" * 100_000, b"\xff", b'{"name":"\\ud800"}', "{'"])
def test_what_is_no_json_is_refused(data: bytes | str) -> None:
    with pytest.raises(BadRequest, match="no JSON"):
        _records.decode(data)


words = st.text(st.characters(codec="utf-8"), max_size=10)
metadata = st.dictionaries(words, words, max_size=3)
values = st.recursive(
    st.builds(Value, words, words),
    lambda inner: st.builds(Value, words, words, st.lists(inner, max_size=3).map(tuple)),
    max_leaves=5,
)
endpoints = st.builds(Endpoint, words, st.none() | values, st.none() | values, metadata)
named = words.filter(bool)
nodes = st.builds(Node, named, named, metadata)
records = st.builds(
    Record,
    named,
    words,
    st.lists(nodes, max_size=3).map(tuple),
    st.lists(endpoints, max_size=3).map(tuple),
    metadata,
)


@given(records)
def test_what_is_written_is_read_again(record: Record) -> None:
    assert _records.decode(_records.encode(record)) == record


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                "name Version nodes id address port metadata request values type x".split()
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=15,
)


@given(anything)
def test_any_json_is_read_or_refused(value: object) -> None:
    try:
        record = _records.from_go(value)
    except BadRequest:
        return
    msgspec.json.encode(_records.to_go(record))


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        _records.decode(data)
    except BadRequest:
        return


def test_versions_are_merged_in_order() -> None:
    endpoint = Endpoint("A.B")
    merged = _records.merge(
        [
            Record("a", "2", (Node("z", "h:1"),)),
            Record("a", "1", (Node("y", "h:1"),)),
            Record("a", "1", (Node("x", "h:2"),), (endpoint,), {"k": "v"}),
            Record("a", "1", (Node("y", "h:3"),), (Endpoint("late"),), {"late": ""}),
        ]
    )
    assert merged == [
        Record("a", "1", (Node("x", "h:2"), Node("y", "h:3")), (endpoint,), {"k": "v"}),
        Record("a", "2", (Node("z", "h:1"),)),
    ]


def test_nothing_merges_to_nothing() -> None:
    assert _records.merge([]) == []


def test_a_copy_shares_no_mapping() -> None:
    copy = _records.copied(RECORD)
    assert copy == RECORD
    assert copy.nodes[0].metadata is not RECORD.nodes[0].metadata
    assert copy.endpoints[0].metadata is not RECORD.endpoints[0].metadata
    assert copy.metadata is not RECORD.metadata


@pytest.mark.parametrize(
    "record",
    [
        Record("", nodes=(Node("n", "h:1"),)),
        Record("a"),
        Record("a", nodes=(Node("", "h:1"),)),
        Record("a", nodes=(Node("n", "h:1"), Node("m", ""))),
    ],
)
def test_what_no_registry_can_hold_is_refused(record: Record) -> None:
    with pytest.raises(BadRequest, match="needs"):
        _records.checked(record)


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [("10.0.0.1:80", "10.0.0.1", 80), ("[::1]:65535", "::1", 65535), ("a.b:1", "a.b", 1)],
)
def test_addresses_are_taken_apart(address: str, host: str, port: int) -> None:
    assert _records.split_address(address) == (host, port)
    assert _records.join_address(host, port) == address


@pytest.mark.parametrize(
    "address",
    ["", "a", ":80", "a:", "a:b", "a:-1", "a:0", "a:65536", "::1", "::1:80", "a:1:80", "a:8\u00b2",
     "a:" + "9" * 5000],
)  # fmt: skip
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(BadRequest):
        _records.split_address(address)
