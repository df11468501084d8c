"""Module _etcd_messages is what etcd's JSON gateway answers (etcdserverpb/rpc.proto)."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from shoal.errors import Unavailable
from shoal.registry._etcd_store import Event

T = TypeVar("T")


class Header(msgspec.Struct):
    revision: int = 0
    raft_term: int = 0


class KeyValue(msgspec.Struct):
    key: bytes = b""
    value: bytes = b""
    mod_revision: int = 0
    lease: int = 0


class Range(msgspec.Struct):
    header: Header
    kvs: list[KeyValue] = []
    more: bool = False


class Lease(msgspec.Struct):
    ID: int = 0
    TTL: int = 0


class Done(msgspec.Struct):
    header: Header


class KeyEvent(msgspec.Struct):
    kv: KeyValue
    type: str = "PUT"


class Watched(msgspec.Struct):
    header: Header
    created: bool = False
    canceled: bool = False
    fragment: bool = False
    compact_revision: int = 0
    cancel_reason: str = ""
    events: list[KeyEvent] = []


class StreamError(msgspec.Struct):
    message: str = ""
    grpc_code: int = 0
    code: int = 0  # what newer gateways call it


class WatchLine(msgspec.Struct):
    result: Watched | None = None
    error: StreamError | None = None


class LeaseLine(msgspec.Struct):
    result: Lease | None = None
    error: StreamError | None = None


def decoded(member: str, data: bytes, into: type[T]) -> T:
    """Return the answer that some JSON is; raises Unavailable for what is none."""
    try:
        return msgspec.json.decode(data, type=into, strict=False)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Unavailable(f"etcd at {member} sends no answer that makes sense: {error}") from None


def event(one: KeyEvent) -> Event:
    """Return what a message of a watch tells of one key."""
    gone = one.type == "DELETE"
    key = one.kv.key.decode(errors="replace")
    return Event(key, None if gone else one.kv.value, one.kv.mod_revision)
