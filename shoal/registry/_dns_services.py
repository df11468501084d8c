"""Module _dns_services finds services in DNS, in each of the forms that they may have there."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dns.name

from shoal.errors import BadRequest, Error, Unavailable
from shoal.registry import Node, Record
from shoal.registry._dns_nameservers import Answer, Kind, Nameservers
from shoal.registry._mdns_zone import decode_txt
from shoal.registry._records import (
    endpoints_from_go,
    join_address,
    merge,
    metadata_from_go,
    split_address,
)

_MANY = 1024  # nodes of one service


@dataclass(frozen=True, slots=True)
class Found:
    """The records of a service, and for how many seconds they hold."""

    records: list[Record]
    ttl: float = 0.0


class Services:
    """Looks services up; nodes of which DNS has no metadata get `metadata`."""

    def __init__(
        self, nameservers: Nameservers, *, protocol: str, port: int, metadata: Mapping[str, str]
    ) -> None:
        self._nameservers = nameservers
        self._protocol = protocol
        self._port = port
        self._metadata = dict(metadata)

    async def look(self, name: str) -> Found:
        """Return what DNS knows of a service, nothing if nobody runs it; raises Unavailable.

        Of the forms that the name may have the first with an answer counts, in this order.
        """
        if ":" in name:
            return await self._host(name)
        if name.startswith("_") and "." in name:  # a whole name of DNS
            return await self._first(name, [(self._targets, self._nameservers.ask(name, "SRV"))])
        if not name:
            return Found([])
        below = self._nameservers.below
        label = f"_{name}._{self._protocol}"
        forms = [
            (self._instances, below(label, "PTR")),
            (self._targets, below(label, "SRV")),
            (self._targets, below(name, "SRV")),
        ]
        if self._port:
            forms += [(self._hosts, below(name, "A")), (self._hosts, below(name, "AAAA"))]
        return await self._first(name, forms)

    async def names(self) -> list[str]:
        """Return the sorted names of services that the domain lists; raises Unavailable."""
        answer = await self._nameservers.below("_services._dns-sd._udp", "PTR")
        if answer is None:
            raise Unavailable(
                f"dns: {self._nameservers} does not list its services: there is no record PTR"
                f" _services._dns-sd._udp; ask for one by its name"
            )
        end = f"._{self._protocol}"
        found = set()
        for record in answer.records:
            text = _text(record.target, self._nameservers.domain)
            if text.startswith("_") and text.endswith(end):
                found.add(text[1 : -len(end)])
        return sorted(found)

    async def _first(
        self, name: str, forms: Sequence[tuple[Any, Awaitable[Answer | None]]]
    ) -> Found:
        answers = await asyncio.gather(*(asked for _, asked in forms), return_exceptions=True)
        problem: Error | None = None
        for (read, _), answer in zip(forms, answers, strict=True):
            if isinstance(answer, Error):
                problem = problem or answer  # of a form that may not be meant
            elif isinstance(answer, BaseException):
                raise answer
            elif answer is not None:
                records: list[Record] = await read(name, answer)
                return Found(merge(records), answer.ttl)
        if problem is not None:
            raise problem
        return Found([])

    # Forms

    async def _instances(self, name: str, answer: Answer) -> list[Record]:
        """Read PTR records, each of an instance that has SRV and TXT (RFC 6763)."""
        names = [record.target for record in answer.records][:_MANY]
        found = await asyncio.gather(*(self._instance(name, one, answer) for one in names))
        return [record for record in found if record is not None]

    async def _instance(self, name: str, instance: dns.name.Name, near: Answer) -> Record | None:
        told = Answer(near.also(instance, "SRV"), near.ttl, near.beside)
        if not told.records:
            asked = await self._nameservers.ask(instance, "SRV")
            if asked is None:
                return None
            told = asked
        target = min(told.records, key=lambda record: record.priority)
        addresses = await self._nameservers.addresses(target.target, told)
        if not addresses:
            return None
        texts = near.also(instance, "TXT")
        if not texts and (answer := await self._nameservers.ask(instance, "TXT")):
            texts = answer.records
        id = _text(instance, "").partition(f"._{name}._{self._protocol}.")[0]
        node = Node(id, join_address(addresses[0], target.port), self._metadata)
        return _described(Record(name, nodes=(node,)), texts[0].strings if texts else ())

    async def _targets(self, name: str, answer: Answer) -> list[Record]:
        """Read SRV records; nodes of a higher number are for when there are no others."""
        best = min(record.priority for record in answer.records)
        targets = [record for record in answer.records if record.priority == best][:_MANY]
        targets = [record for record in targets if record.target != dns.name.root and record.port]
        found = await asyncio.gather(
            *(self._nameservers.addresses(record.target, answer) for record in targets)
        )
        return [
            self._record(name, address, record.port)
            for record, addresses in zip(targets, found, strict=True)
            for address in addresses
        ]

    async def _hosts(self, name: str, answer: Answer) -> list[Record]:
        """Read A or AAAA records, which have no port of their own."""
        return [self._record(name, record.address, self._port) for record in answer.records[:_MANY]]

    async def _host(self, name: str) -> Found:
        """Look up `host:port`; a host that is an address already needs no nameserver."""
        try:
            host, port = split_address(name)
        except BadRequest:
            return Found([])
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            below = self._nameservers.ask if "." in host else self._nameservers.below
            kinds: tuple[Kind, ...] = ("A", "AAAA")
            for kind in kinds:
                if answer := await below(host, kind):
                    records = [self._record(name, one.address, port) for one in answer.records]
                    return Found(merge(records), answer.ttl)
            return Found([])
        return Found([self._record(name, str(address), port)], float("inf"))

    def _record(self, name: str, address: str, port: int) -> Record:
        where = join_address(address, port)
        return Record(name, nodes=(Node(f"{name}-{where}", where, dict(self._metadata)),))


def _described(record: Record, texts: Sequence[bytes]) -> Record:
    """Return a record with what a TXT record adds: `key=value` pairs, or Go Micro's of mdns."""
    node = record.nodes[0]
    try:
        members, _ = decode_txt(tuple(texts))
        version = members.get("version")
        return replace(
            record,
            version=version if isinstance(version, str) else record.version,
            nodes=(replace(node, metadata=metadata_from_go(members.get("metadata"), "txt")),),
            endpoints=endpoints_from_go(members.get("endpoints")),
        )
    except BadRequest:
        pairs = [text.decode(errors="replace").partition("=") for text in texts]
        metadata = {key: value for key, _, value in pairs if key}
        version = metadata.pop("version", record.version)
        node = replace(node, metadata={**node.metadata, **metadata})
        return replace(record, version=version, nodes=(node,))


def _text(name: dns.name.Name, domain: str) -> str:
    """Return a name as it was typed, without the domain."""
    if domain:
        below = dns.name.from_text(domain)
        if name.is_subdomain(below):
            name = name.relativize(below)
    return b".".join(name.labels).decode(errors="replace")
