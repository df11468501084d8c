"""Module _consul_tags writes nodes as services of Consul and reads them back.

Format: Go Micro v6, registry/consul/encoding.go and consul.go.
"""

from __future__ import annotations

import binascii
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from shoal.errors import BadRequest
from shoal.registry import Endpoint, Node, Record
from shoal.registry._consul_settings import ConsulSettings, HttpCheck, TcpCheck
from shoal.registry._records import (
    endpoint_to_go,
    endpoints_from_go,
    join_address,
    merge,
    metadata_from_go,
    parse,
    split_address,
)

MAX_JSON = 1 << 20  # in one tag

# What Consul takes as Meta (structs.ValidateServiceMetadata).
_META_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}\Z")
_META_VALUE, _META_PAIRS = 512, 64

_encode = msgspec.json.Encoder().encode


class Host(msgspec.Struct, rename="pascal"):
    """The machine an agent runs on."""

    address: str = ""


class Service(msgspec.Struct, rename="pascal"):
    """A service of Consul: one node of ours."""

    id: str = msgspec.field(name="ID", default="")
    service: str = ""
    address: str = ""
    port: int = 0
    tags: list[str] | None = None


class Check(msgspec.Struct, rename="pascal"):
    """What Consul thinks of a machine or service."""

    status: str = ""


class Entry(msgspec.Struct, rename="pascal"):
    """One answer of `/v1/health/service`."""

    node: Host
    service: Service
    checks: list[Check] | None = None


def registration(
    record: Record, node: Node, ttl: float | None, settings: ConsulSettings
) -> dict[str, Any]:
    """Return what registers a node; it carries no metadata of the service, as with Go Micro."""
    try:
        host, port = split_address(node.address)
    except BadRequest:
        host, port = node.address, 0  # a queue's name
    payload: dict[str, Any] = {
        "ID": node.id,
        "Name": record.name,
        "Address": host,
        "Port": port,
        "Tags": list(tags_of(record, node)),
        "Meta": _meta(node),
    }
    if check := _check(node.address, host, ttl, settings.check):
        payload["Check"] = check
    if settings.connect:
        payload["Connect"] = {"Native": True}
    return payload


def tags_of(record: Record, node: Node) -> Iterator[str]:
    """Return metadata, endpoints and version as tags."""
    for key, value in node.metadata.items():
        yield f"t-{_pack(_encode({key: value}))}"
    for endpoint in record.endpoints:
        yield f"e-{_pack(_encode(endpoint_to_go(endpoint)))}"
    yield f"v-{_pack(record.version.encode())}"


def records_of(name: str, entries: Iterable[Entry]) -> list[Record]:
    """Return one record for each version that has a node no check calls critical."""
    found: dict[str, list[Node]] = {}
    endpoints: dict[str, tuple[Endpoint, ...]] = {}
    for entry in entries:
        service = entry.service
        if service.service != name or any(one.status == "critical" for one in entry.checks or ()):
            continue
        tags = service.tags or []
        version = version_of(tags)
        host = service.address or entry.node.address
        address = join_address(host, service.port) if service.port else host
        if not service.id or not address:
            continue
        found.setdefault(version, []).append(Node(service.id, address, metadata_of(tags)))
        if not endpoints.get(version):
            endpoints[version] = endpoints_of(tags)
    return merge(
        Record(name, version, tuple(nodes), endpoints[version]) for version, nodes in found.items()
    )


def version_of(tags: Sequence[str]) -> str:
    """Return the version in the tags, empty if they have none."""
    for _, data in _marked(tags, "v"):
        try:
            return data.decode()
        except UnicodeDecodeError:
            continue
    return ""


def metadata_of(tags: Sequence[str]) -> dict[str, str]:
    """Return the metadata in the tags."""
    metadata: dict[str, str] = {}
    for data in _of_one_form(tags, "t"):
        try:
            metadata |= metadata_from_go(parse(data), "metadata")
        except BadRequest:
            continue  # somebody else's tag that looks like one
    return metadata


def endpoints_of(tags: Sequence[str]) -> tuple[Endpoint, ...]:
    """Return the endpoints in the tags."""
    endpoints: list[Endpoint] = []
    for data in _of_one_form(tags, "e"):
        try:
            endpoints += endpoints_from_go([parse(data)])
        except BadRequest:
            continue
    return tuple(endpoints)


def go_duration(seconds: float) -> str:
    """Return a time as Go writes it: `1m30s`, `200ms`."""
    if seconds < 1:
        return f"{max(round(seconds * 1000), 1)}ms"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    text = f"{hours}h" if hours else ""
    return f"{text}{minutes}m{rest:g}s" if text or minutes else f"{rest:g}s"


def _check(
    address: str, host: str, ttl: float | None, check: TcpCheck | HttpCheck | None
) -> dict[str, str]:
    if isinstance(check, TcpCheck):
        how = {"TCP": address, "Interval": go_duration(check.interval)}
        every = check.interval
    elif check is not None:
        url = check.url.replace("{host}", f"[{host}]" if ":" in host else host, 1)
        how = {"HTTP": url, "Interval": go_duration(check.interval)}
        how["Timeout"] = go_duration(check.timeout)
        every = check.interval
    elif ttl:
        # It passes from the start: who registers lives, and watchers see no moment without it.
        how = {"TTL": go_duration(ttl), "Status": "passing"}
        every = ttl
    else:
        return {}
    gone = every + 5 if every >= 60 else 65  # Consul forgets nothing within the first minute
    return {**how, "DeregisterCriticalServiceAfter": go_duration(gone)}


def _meta(node: Node) -> dict[str, str]:
    """Return the metadata Consul can hold for its own tools; readers take it from the tags."""
    fitting = {
        key: value
        for key, value in node.metadata.items()
        if _META_KEY.match(key)
        and not key.lower().startswith("consul-")
        and len(value.encode()) <= _META_VALUE
    }
    return dict(list(fitting.items())[:_META_PAIRS])


def _of_one_form(tags: Sequence[str], kind: str) -> Iterator[bytes]:
    """Return the data of all tags written as the first one is."""
    first = ""
    for form, data in _marked(tags, kind):
        first = first or form
        if form == first:
            yield data


def _marked(tags: Sequence[str], kind: str) -> Iterator[tuple[str, bytes]]:
    """Return form and data of the tags of a kind, leaving out what others have written."""
    for tag in tags:
        form, text = tag[1:2], tag[2:]
        if tag[:1] != kind:
            continue
        if form == "=":  # as before Go Micro 0.1
            yield form, text.encode(errors="surrogatepass")
        elif form == "-" and (data := _unpack(text)) is not None:
            yield form, data


def _pack(data: bytes) -> str:
    return zlib.compress(data).hex()


def _unpack(text: str) -> bytes | None:
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(binascii.unhexlify(text), MAX_JSON)
    except (zlib.error, binascii.Error, ValueError):
        return None
    return data if inflate.eof else None
