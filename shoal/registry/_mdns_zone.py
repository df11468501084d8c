"""Module _mdns_zone says in DNS records what Go Micro's mdns registry says, and reads it.

Formats: Go Micro v6, registry/mdns_registry.go and internal/util/mdns/zone.go.
"""

from __future__ import annotations

import binascii
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import msgspec

from shoal.errors import BadRequest
from shoal.registry import Endpoint, Node, Record, _dns
from shoal.registry._dns import Message, Name, Question, Resource
from shoal.registry._records import (
    endpoint_to_go,
    endpoints_from_go,
    join_address,
    members_of,
    metadata_from_go,
    parse,
)

TTL = 120
MAX_JSON = 1 << 20
LIST = "_services"  # every service has an instance of this one, for listing
_LIST_PORT = 9999


@dataclass(frozen=True, slots=True)
class Instance:
    """A node as DNS knows it."""

    service: Name
    name: Name
    host: Name
    ip: IPv4Address | IPv6Address
    port: int
    txt: tuple[bytes, ...]

    def answer(self, question: Question) -> tuple[Resource, ...]:
        """Return the records that answer a question, none if it is about something else."""
        if question.klass & ~_dns.TOP_BIT not in (_dns.IN, _dns.ANY):
            return ()
        service, txt, pointer = self.records()[:-1], self.records()[-1:], self._pointer()
        if question.name == self.service and question.type in (_dns.PTR, _dns.ANY):
            return (pointer, *service, *txt)
        if question.name == self.name:
            if question.type == _dns.ANY:
                return (*service, *txt)
            if question.type == _dns.SRV:
                return service
            if question.type == _dns.TXT:
                return txt
            if question.type == service[-1].type:
                return service[-1:]
        return ()

    def records(self, ttl: int = TTL) -> tuple[Resource, ...]:
        """Return SRV, address and TXT, as an announcement has them; a TTL of 0 is a goodbye."""
        address = _dns.A if self.ip.version == 4 else _dns.AAAA
        target = _dns.Service(10, 1, self.port, self.host)
        return (
            Resource(self.name, _dns.SRV, ttl, target),
            Resource(self.host, address, ttl, self.ip.packed),
            Resource(self.name, _dns.TXT, ttl, self.txt),
        )

    def probe(self) -> Message:
        """Return the question whether somebody has the name already, as RFC 6762 wants it."""
        target = _dns.Service(0, 0, self.port, self.host)
        return Message(
            questions=(Question(self.name, _dns.PTR),),
            authorities=(Resource(self.name, _dns.SRV, TTL, target), *self.records()[-1:]),
        )

    def announcement(self, ttl: int = TTL) -> Message:
        """Return what is told to everybody when a node comes, or with a TTL of 0 when it goes."""
        return Message(flags=_dns.RESPONSE, answers=self.records(ttl))

    def _pointer(self) -> Resource:
        return Resource(self.service, _dns.PTR, TTL, self.name)


@dataclass(frozen=True, slots=True)
class Entry:
    """What a message tells about one instance, of which `record` has the one node.

    `weight` is the size of what it tells in bytes, `mark` differs when that differs.
    """

    record: Record
    gone: bool
    weight: int
    mark: int


def reply(query: Message, question: Question, answers: tuple[Resource, ...]) -> Message:
    """Return the message that answers a question; readers in Go drop it without the question."""
    unicast = question.klass & _dns.TOP_BIT
    return Message(
        id=query.id if unicast else 0,
        flags=_dns.RESPONSE | _dns.AUTHORITATIVE,
        questions=query.questions,
        answers=answers,
    )


def dns_name(name: str, domain: str) -> Name:
    """Return `name` below `domain`; raises BadRequest if DNS cannot carry it."""
    labels = _labels(f"{name}.{domain}")
    if labels is None:
        raise BadRequest(
            f"mdns cannot carry the name {name!r}: it may have 63 bytes between two dots, and"
            f" {253 - len(domain)} in all; choose a shorter name, or another registry"
        )
    return labels


def instance(
    record: Record,
    node: Node,
    ip: IPv4Address | IPv6Address,
    port: int,
    *,
    domain: str,
    host: str,
) -> Instance:
    """Return a node of a record as DNS knows it; raises BadRequest if it cannot be said."""
    service = dns_name(record.name, domain)
    name = dns_name(f"{node.id}.{record.name}", domain)
    txt = encode_txt(record.name, record.version, record.endpoints, node.metadata)
    return Instance(service, name, _host(host), ip, port, txt)


def listed(name: str, *, domain: str, host: str) -> Instance:
    """Return the instance that lists a service by its name."""
    service = dns_name(LIST, domain)
    whole = dns_name(f"{name}.{LIST}", domain)
    return Instance(service, whole, _host(host), IPv4Address(0), _LIST_PORT, ())


def encode_txt(
    name: str, version: str, endpoints: tuple[Endpoint, ...], metadata: Mapping[str, str]
) -> tuple[bytes, ...]:
    """Return the strings of the TXT record: hex of zlib of JSON, cut at 255."""
    value = {
        "Metadata": dict(sorted(metadata.items())),
        "Service": name,
        "Version": version,
        "Endpoints": [endpoint_to_go(endpoint) for endpoint in endpoints] or None,
    }
    data = msgspec.json.encode(value)
    if len(data) > MAX_JSON:
        raise BadRequest(f"the record of {name!r} is {len(data)} bytes long, mdns takes {MAX_JSON}")
    coded = binascii.hexlify(zlib.compress(data))
    return tuple(coded[start : start + 255] for start in range(0, len(coded), 255))


def decode_txt(strings: tuple[bytes, ...]) -> tuple[dict[str, Any], int]:
    """Return the members of a TXT record's JSON in lower case and its length; raises BadRequest."""
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(binascii.unhexlify(b"".join(strings)), MAX_JSON + 1)
    except (binascii.Error, zlib.error) as error:
        raise BadRequest(f"txt: {error}") from None
    if len(data) > MAX_JSON:
        raise BadRequest(f"txt: holds more than {MAX_JSON} bytes")
    if not unpacker.eof:
        raise BadRequest("txt: ends too early")
    return members_of(parse(data), "txt"), len(data)


def read_entries(message: Message, domain: str) -> Iterator[Entry | BadRequest]:
    """Yield the complete instances below a domain that a message tells of.

    One that is there but makes no sense comes as the error that says what is wrong with it.
    """
    below = tuple(domain.encode().split(b"."))
    resources = message.answers + message.additionals
    hosts: dict[Name, IPv4Address | IPv6Address] = {}
    texts: dict[Name, tuple[bytes, ...]] = {}
    for resource in reversed(resources):
        data = resource.data
        if resource.type == _dns.TXT and isinstance(data, tuple):
            texts[resource.name] = data
        elif resource.type == _dns.A and isinstance(data, bytes) and len(data) == 4:
            hosts[resource.name] = IPv4Address(data)
        elif resource.type == _dns.AAAA and isinstance(data, bytes) and len(data) == 16:
            hosts.setdefault(resource.name, IPv6Address(data))
    services = {resource.name: resource for resource in resources if resource.type == _dns.SRV}
    for name, resource in services.items():
        target = resource.data
        if not isinstance(target, _dns.Service) or name[-len(below) :] != below:
            continue
        ip, txt = hosts.get(target.target), texts.get(name)
        if ip is not None and txt and target.port:
            yield _entry(name[: -len(below)], ip, target.port, txt, gone=resource.ttl == 0)


def read_names(message: Message, domain: str) -> Iterator[str]:
    """Yield the service names an answer to a list query tells of."""
    below = dns_name(LIST, domain)
    for resource in message.answers:
        name = resource.data
        if resource.type != _dns.PTR or not resource.ttl or not isinstance(name, tuple):
            continue
        if name[-len(below) :] == below and len(name) > len(below):
            with suppress(UnicodeDecodeError):
                yield b".".join(name[: -len(below)]).decode()


def _entry(
    name: Name, ip: IPv4Address | IPv6Address, port: int, txt: tuple[bytes, ...], *, gone: bool
) -> Entry | BadRequest:
    try:
        members, weight = decode_txt(txt)
        service, version = members.get("service"), members.get("version")
        if not isinstance(service, str) or not isinstance(version, str) or not service:
            raise BadRequest("txt: Service and Version must be strings")
        suffix = _labels(service)
        if not suffix or name[-len(suffix) :] != suffix or len(name) == len(suffix):
            raise BadRequest(f"txt: is of {service!r}, which is not in the name")
        node_id = b".".join(name[: -len(suffix)]).decode()
        metadata = metadata_from_go(members.get("metadata"), "txt: Metadata")
        endpoints = endpoints_from_go(members.get("endpoints"))
    except (BadRequest, UnicodeDecodeError) as error:
        return error if isinstance(error, BadRequest) else BadRequest("the name is no UTF-8")
    node = Node(node_id, join_address(str(ip), port), metadata)
    record = Record(service, version, (node,), endpoints)
    return Entry(record, gone, weight, hash((ip, port, txt, gone)))


def _host(name: str) -> Name:
    return _labels(name.strip(".")) or (b"localhost",)


def _labels(name: str) -> Name | None:
    try:
        data = name.encode()
    except UnicodeEncodeError:
        return None
    labels = tuple(data.split(b"."))
    sound = len(data) < 254 and all(0 < len(label) < 64 for label in labels)
    return labels if sound else None
