"""Module _records turns records into Go Micro's JSON and back, and merges what nodes say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from shoal.errors import BadRequest
from shoal.registry import Endpoint, Node, Record, Value

MAX_DEPTH = 32  # of a value's fields; Go Micro writes three

T = TypeVar("T")

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


def encode(record: Record) -> bytes:
    """Return the record as Go Micro's JSON (registry.Service, v1.8 and later)."""
    return _encode(to_go(record))


def decode(data: bytes | str) -> Record:
    """Return the record some JSON stands for; raises BadRequest naming what is wrong in it."""
    return from_go(parse(data))


def parse(data: bytes | str) -> Any:
    """Return what some JSON from outside says; raises BadRequest for bytes that are no JSON."""
    try:
        return _decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise BadRequest(f"the record is no JSON: {error}") from None


def to_go(record: Record) -> dict[str, Any]:
    """Return the record as the objects, members and order of Go Micro's JSON."""
    return {
        "name": record.name,
        "version": record.version,
        "metadata": dict(record.metadata),
        "endpoints": [endpoint_to_go(endpoint) for endpoint in record.endpoints],
        "nodes": [
            {"metadata": dict(node.metadata), "id": node.id, "address": node.address}
            for node in record.nodes
        ],
    }


def endpoint_to_go(endpoint: Endpoint) -> dict[str, Any]:
    """Return an endpoint as Go Micro's JSON has it."""
    return {
        "request": _value_to_go(endpoint.request),
        "response": _value_to_go(endpoint.response),
        "metadata": dict(endpoint.metadata),
        "name": endpoint.name,
    }


def from_go(value: object) -> Record:
    """Return the record a JSON value stands for.

    Go reads member names in any case and writes null for empty lists and maps; both are accepted
    and unknown members ignored. Raises BadRequest naming the member that is wrong.
    """
    members = members_of(value, "record")
    name = _text(members, "name", "")
    if not name:
        raise BadRequest("name: a record needs one")
    return Record(
        name=name,
        version=_text(members, "version", ""),
        nodes=_each(members, "nodes", "", _node),
        endpoints=endpoints_from_go(members.get("endpoints")),
        metadata=metadata_from_go(members.get("metadata"), "metadata"),
    )


def endpoints_from_go(value: object) -> tuple[Endpoint, ...]:
    """Return the endpoints of a JSON list or null; raises BadRequest."""
    return _each({"endpoints": value}, "endpoints", "", _endpoint)


def metadata_from_go(value: object, where: str) -> dict[str, str]:
    """Return the metadata of a JSON object or null; raises BadRequest naming `where`."""
    if value is None or value == []:
        return {}
    if not isinstance(value, dict):
        raise BadRequest(f"{where}: must be an object")
    for key, item in value.items():
        if item is not None and not isinstance(item, str):
            raise BadRequest(f"{where}.{key}: must be a string")
    return {key: item or "" for key, item in value.items()}


def members_of(value: object, where: str) -> dict[str, Any]:
    """Return the members of a JSON object with names in lower case; raises BadRequest."""
    if not isinstance(value, dict):
        raise BadRequest(f"{where}: must be an object")
    return {name.lower(): item for name, item in value.items()}


def merge(records: Iterable[Record]) -> list[Record]:
    """Return one record per version with all nodes, both sorted, whatever order they came in.

    Of a node told twice the last is kept; endpoints and metadata are those of the first record of
    the version that has any.
    """
    versions: dict[str, Record] = {}
    nodes: dict[str, dict[str, Node]] = {}
    for record in records:
        first = versions.setdefault(record.version, record)
        if record is not first:
            versions[record.version] = replace(
                first,
                endpoints=first.endpoints or record.endpoints,
                metadata=first.metadata or record.metadata,
            )
        nodes.setdefault(record.version, {}).update((node.id, node) for node in record.nodes)
    return [
        replace(record, nodes=tuple(node for _, node in sorted(nodes[version].items())))
        for version, record in sorted(versions.items())
    ]


def copied(record: Record) -> Record:
    """Return an equal record that shares no mapping with the one given."""
    return replace(
        record,
        nodes=tuple(replace(node, metadata=dict(node.metadata)) for node in record.nodes),
        endpoints=tuple(
            replace(endpoint, metadata=dict(endpoint.metadata)) for endpoint in record.endpoints
        ),
        metadata=dict(record.metadata),
    )


def checked(record: Record) -> Record:
    """Return a copy of a record to register; raises BadRequest if a registry cannot hold it."""
    if not record.name:
        raise BadRequest("a record needs a name")
    if not record.nodes:
        raise BadRequest(f"the record of {record.name!r} needs a node")
    for node in record.nodes:
        if not node.id:
            raise BadRequest(f"a node of {record.name!r} needs an id")
        if not node.address:
            raise BadRequest(f"node {node.id!r} of {record.name!r} needs an address")
    return copied(record)


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of `host:port` or `[::1]:port`; raises BadRequest."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed):
        raise BadRequest(f"{address!r} must be host:port, IPv6 in brackets")
    if not (port.isascii() and port.isdigit() and 0 < int(port[:6]) < 65536 and len(port) < 6):
        raise BadRequest(f"{address!r} needs a port between 1 and 65535")
    return (host[1:-1] if bracketed else host), int(port)


def join_address(host: str, port: int) -> str:
    """Return `host:port`, with brackets around IPv6."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _value_to_go(value: Value | None) -> dict[str, Any] | None:
    if value is None:
        return None
    values = [_value_to_go(field) for field in value.values]
    return {"name": value.name, "type": value.type, "values": values or None}


def _text(members: Mapping[str, Any], name: str, where: str) -> str:
    value = members.get(name)
    if value is not None and not isinstance(value, str):
        raise BadRequest(f"{where}{name}: must be a string")
    return value or ""


def _each(
    members: Mapping[str, Any], name: str, where: str, read: Callable[[Any, str], T]
) -> tuple[T, ...]:
    value = members.get(name)
    if value is None or value == {}:
        return ()
    if not isinstance(value, list):
        raise BadRequest(f"{where}{name}: must be a list")
    return tuple(
        read(item, f"{where}{name}[{index}]")
        for index, item in enumerate(value)
        if item is not None  # a nil pointer in Go's slice
    )


def _node(value: object, where: str) -> Node:
    members = members_of(value, where)
    name, address = _text(members, "id", f"{where}."), _text(members, "address", f"{where}.")
    port = members.get("port")
    if not name or not address:
        raise BadRequest(f"{where}: a node needs an id and an address")
    if port is not None and (not isinstance(port, int) or not 0 <= port < 65536):
        raise BadRequest(f"{where}.port: must be a number up to 65535")
    if port and not _has_port(address):  # Go Micro before v1.8 kept host and port apart
        address = join_address(address.strip("[]"), port)
    return Node(name, address, metadata_from_go(members.get("metadata"), f"{where}.metadata"))


def _has_port(address: str) -> bool:
    try:
        split_address(address)
    except BadRequest:
        return False
    return True


def _endpoint(value: object, where: str) -> Endpoint:
    members = members_of(value, where)
    return Endpoint(
        _text(members, "name", f"{where}."),
        _value(members.get("request"), f"{where}.request", MAX_DEPTH),
        _value(members.get("response"), f"{where}.response", MAX_DEPTH),
        metadata_from_go(members.get("metadata"), f"{where}.metadata"),
    )


def _value(value: object, where: str, depth: int) -> Value | None:
    if value is None:
        return None
    if not depth:
        raise BadRequest(f"{where}: nests deeper than {MAX_DEPTH}")
    members = members_of(value, where)

    fields = _each(
        members, "values", f"{where}.", lambda item, place: _value(item, place, depth - 1)
    )
    return Value(
        _text(members, "name", f"{where}."),
        _text(members, "type", f"{where}."),
        tuple(field for field in fields if field is not None),
    )
