"""Tests of reading what etcd answers, whatever it is."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import Unavailable
from shoal.registry._etcd_messages import LeaseLine, Range, WatchLine, decoded, event
from shoal.registry._etcd_store import Event

# Lines of etcd 3.4 (JSON gateway, /v3/watch).
CREATED = b'{"result":{"header":{"revision":"12","raft_term":"2"},"created":true}}'
PUT = (
    b'{"result":{"header":{"revision":"13"},"events":[{"kv":{"key":"L2E=","create_revision":"13",'
    b'"mod_revision":"13","version":"1","value":"Yg==","lease":"7587849294362282752"}}]}}'
)
DELETE = (
    b'{"result":{"header":{"revision":"14"},"events":[{"type":"DELETE","kv":{"key":"L2E=",'
    b'"mod_revision":"14"}}]}}'
)
COMPACTED = b'{"result":{"header":{},"canceled":true,"compact_revision":"3"}}'
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["result", "error", "header", "events", "kv", "kvs", "key", "TTL"]),
            inner,
            max_size=4,
        )
    ),
)


def test_a_watch_is_read() -> None:
    created = decoded("m", CREATED, WatchLine).result
    assert created is not None
    assert (created.created, created.header.revision, created.header.raft_term) == (True, 12, 2)
    put, delete, compacted = (decoded("m", line, WatchLine) for line in (PUT, DELETE, COMPACTED))
    assert put.result is not None
    assert put.result.events[0].kv.lease == 7587849294362282752
    assert [event(one) for one in put.result.events] == [Event("/a", b"b", 13)]
    assert delete.result is not None
    assert [event(one) for one in delete.result.events] == [Event("/a", None, 14)]
    assert compacted.result is not None
    assert compacted.result.compact_revision == 3
    refused = decoded("m", b'{"error":{"grpc_code":16,"message":"x","details":[]}}', WatchLine)
    assert refused.error is not None
    assert (refused.error.grpc_code, refused.error.message) == (16, "x")


@given(st.binary(max_size=60) | JSON.map(msgspec.json.encode))
def test_what_makes_no_sense_is_unavailable(data: bytes) -> None:
    for kind in (WatchLine, LeaseLine, Range):
        with contextlib.suppress(Unavailable):
            assert isinstance(decoded("m", data, kind), kind)


def test_nesting_is_bounded() -> None:
    with pytest.raises(Unavailable):
        decoded("m", b'{"result":' + b"[" * 100_000, WatchLine)
