"""Module mdns is the registry that needs no server: nodes answer for themselves by multicast."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial

from shoal.errors import BadRequest, Unavailable
from shoal.registry import Change, Record, Registry, _dns
from shoal.registry import _mdns_zone as zone
from shoal.registry._complaints import Complaints
from shoal.registry._mdns_lookup import Lookup
from shoal.registry._mdns_node import PublishedNode, instance_of
from shoal.registry._mdns_sockets import Address, Multicast
from shoal.registry._mdns_watch import Watch
from shoal.registry._records import checked, copied, join_address, merge

logger = logging.getLogger(__name__)

_QUESTIONS = 8  # answered of one query
_UNREAD = 16 << 20  # bytes one watcher may be behind


class MdnsRegistry(Registry):
    """Finds the nodes of the local network, Go Micro's among them (Go Micro v6, registry mdns).

    A node is known as long as its process answers for it. Metadata of the service itself is not
    carried. A look-up takes `timeout` seconds, always: nobody knows how many will answer. One that
    joins a look-up under way may hear what was true a `timeout` ago.
    """

    def __init__(self, address: str = "", *, domain: str = "micro", timeout: float = 0.1) -> None:
        """Speak through the network interface called `address`; if empty, as the system chooses."""
        label = zone.dns_name(zone.LIST, domain)[1]
        self._mark = bytes([len(label)]) + label  # in every message about the domain
        self._interface = address
        self._domain = domain
        self._timeout = timeout
        self._nodes: dict[tuple[str, str], PublishedNode] = {}
        self._watches: set[Watch] = set()
        self._lookups: dict[str, Lookup] = {}
        self._multicast: Multicast | None = None  # open while there are nodes or watches
        self._heard = False
        self._complaints = Complaints(logger)
        self.error: Exception | None = None
        """Why nobody finds the nodes of this registry, None if nothing speaks against it."""

    def __repr__(self) -> str:
        nodes = sorted(node for _, node in self._nodes)
        return f"MdnsRegistry({self._domain!r}, nodes={nodes}, watches={len(self._watches)})"

    async def register(self, record: Record, *, ttl: float | None = None) -> None:
        record = checked(record)
        found = [await instance_of(record, node, self._domain) for node in record.nodes]
        try:
            self._open().join()
            for node, instance in zip(record.nodes, found, strict=True):
                heard = replace(node, address=join_address(str(instance.ip), instance.port))
                self._publish(replace(record, nodes=(heard,), metadata={}), instance, ttl)
        finally:
            self._release()

    async def deregister(self, record: Record) -> None:
        for node in record.nodes:
            self._withdraw((record.name, node.id))

    async def get(self, name: str) -> list[Record]:
        try:
            zone.dns_name(name, self._domain)
        except BadRequest:
            return []  # nobody can run what cannot be said
        lookup = await self._ask(name)
        found = {key: entry.record for key, entry in lookup.entries.items()}
        found |= {key: node.record for (known, key), node in self._nodes.items() if known == name}
        return merge(copied(record) for record in found.values())

    async def services(self) -> list[str]:
        names = (await self._ask(zone.LIST)).names
        return sorted(names.union(name for name, _ in self._nodes))

    async def watch(self, name: str | None = None) -> AsyncIterator[Change]:
        watch = Watch(name, _UNREAD)
        self._open()
        self._watches.add(watch)
        try:
            while change := await watch.feed.next():
                yield change
        finally:
            self._watches.discard(watch)
            self._release()

    async def close(self) -> None:
        for key in list(self._nodes):
            self._withdraw(key)
        for watch in self._watches:
            watch.feed.end()
        self._watches.clear()
        for lookup in list(self._lookups.values()):
            lookup.finish(Unavailable("mdns: the registry was closed during the look-up"))
        self._release()

    def _publish(self, record: Record, instance: zone.Instance, ttl: float | None) -> None:
        key = (record.name, record.nodes[0].id)
        known = self._nodes.get(key)
        if known is None or known.instance != instance:
            node = PublishedNode(record, instance, self._send)
            node.announce(partial(self._announced, record.name), probe=known is None)
            if known is not None:
                known.stop()
            self._nodes[key] = known = node
        known.expire(ttl, partial(self._withdraw, key))

    def _announced(self, name: str) -> None:
        if not self._heard:
            self.error = Unavailable(
                "mdns: multicast leaves this machine but nothing comes in, so nobody will find"
                f" {name}: let UDP port 5353 through, or choose another registry"
            )
            logger.warning("%s", self.error)

    def _withdraw(self, key: tuple[str, str]) -> None:
        if node := self._nodes.pop(key, None):
            node.withdraw()
            self._release()

    def _send(self, data: bytes) -> None:
        if self._multicast is not None:
            self._multicast.send(data)

    def _open(self) -> Multicast:
        if self._multicast is None:
            self._multicast = Multicast(self._received, listen=True, interface=self._interface)
            self._heard = False
        return self._multicast

    def _release(self) -> None:
        if self._multicast is not None and not self._nodes and not self._watches:
            self._multicast.close()
            self._multicast = self.error = None

    async def _ask(self, name: str) -> Lookup:
        lookup = self._lookups.get(name)
        if lookup is None:
            if self._multicast is not None:
                self._multicast.join()  # the network may have changed since it was opened
            lookup = Lookup(name, self._domain, self._interface, self._complaints)
            lookup.start(self._timeout, lambda: self._lookups.pop(name, None))
            self._lookups[name] = lookup
        return await lookup.wait()

    def _received(self, multicast: Multicast, data: bytes, address: Address) -> None:
        if not self._heard:
            self._heard, self.error = True, None
        if self._mark not in data or (data[2:3] >= b"\x80" and not self._watches):
            return  # most of what is said by multicast is about something else
        try:
            message = _dns.decode(data)
        except _dns.DnsError as error:
            self._complaints.add(error, address)
            return
        if message.flags & _dns.RESPONSE:
            self._tell(message, address)
        elif not message.flags & 0x780F:  # RFC 6762: other opcodes and codes are ignored
            self._answer(multicast, message, address)

    def _answer(self, multicast: Multicast, query: _dns.Message, address: Address) -> None:
        host = socket.gethostname()
        instances = [node.instance for node in self._nodes.values()]
        names = {name for name, _ in self._nodes}
        instances += [zone.listed(name, domain=self._domain, host=host) for name in names]
        for question in query.questions[:_QUESTIONS]:
            for instance in instances:
                # One node a message: Go Micro reads no more than one from each.
                if answers := instance.answer(question):
                    try:
                        reply = _dns.encode(zone.reply(query, question, answers))
                    except _dns.DnsError as error:  # too much was asked to be echoed
                        self._complaints.add(error, address)
                        return
                    multicast.reply(reply, address)

    def _tell(self, message: _dns.Message, address: Address) -> None:
        for entry in zone.read_entries(message, self._domain) if self._watches else ():
            if isinstance(entry, BadRequest):
                self._complaints.add(entry, address)
                continue
            for watch in self._watches:
                watch.put(entry)
