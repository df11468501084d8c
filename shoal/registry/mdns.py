"""Module mdns is the registry that needs no server: nodes answer for themselves by multicast."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from shoal.errors import BadRequest, Unavailable
from shoal.registry import Change, Node, Record, Registry, _dns, _zone
from shoal.registry._complaints import Complaints
from shoal.registry._feed import Feed
from shoal.registry._lookup import Lookup
from shoal.registry._multicast import Address, Multicast
from shoal.registry._records import checked, copied, merge, split_address

logger = logging.getLogger(__name__)

_DATAGRAM = 65_507  # bytes of data in the largest one IPv4 has
_QUESTIONS = 8  # answered of one query
_FEED_BYTES = 16 << 20
_REMEMBERED = 4096  # announcements a watcher knows again, each comes three times
_RESOLVE_TIMEOUT = 5.0


@dataclass(slots=True, eq=False)
class _Published:
    record: Record  # with the one node
    instance: _zone.Instance
    announcing: asyncio.TimerHandle | None = None
    expiry: asyncio.TimerHandle | None = None

    def cancel(self) -> None:
        for timer in (self.announcing, self.expiry):
            if timer is not None:
                timer.cancel()


@dataclass(slots=True, eq=False)
class _Watch:
    name: str | None
    feed: Feed
    seen: OrderedDict[tuple[str, str], tuple[int, bool]]


class MdnsRegistry(Registry):
    """Finds the nodes of the local network, Go Micro's among them (Go Micro v6, registry mdns).

    A node is known as long as its process answers. Service metadata is not carried. A look-up
    takes `timeout` seconds, always: nobody knows how many will answer.
    """

    def __init__(self, address: str = "", *, domain: str = "micro", timeout: float = 0.1) -> None:
        """Speak through the network interface called `address`, or all if that is empty."""
        _zone.dns_name(_zone.LIST, domain)
        self._interface = address
        self._domain = domain
        self._timeout = timeout
        self._published: dict[tuple[str, str], _Published] = {}
        self._watches: set[_Watch] = set()
        self._lookups: dict[str, Lookup] = {}
        self._multicast: Multicast | None = None
        self._heard = False
        self._complaints = Complaints(logger)

    def __repr__(self) -> str:
        nodes = sorted(node for _, node in self._published)
        return f"MdnsRegistry({self._domain!r}, nodes={nodes}, watches={len(self._watches)})"

    async def register(self, record: Record, *, ttl: float | None = None) -> None:
        record = checked(record)
        found = [(node, await self._instance(record, node)) for node in record.nodes]
        try:
            multicast = self._open()
            multicast.join()
            for node, instance in found:
                self._publish(multicast, replace(record, nodes=(node,)), instance, ttl)
        finally:
            self._release()

    async def deregister(self, record: Record) -> None:
        for node in record.nodes:
            self._withdraw((record.name, node.id))
        self._release()

    async def get(self, name: str) -> list[Record]:
        try:
            _zone.dns_name(name, self._domain)
        except BadRequest:
            return []  # nobody can run what cannot be said
        entries = (await self._ask(name)).entries.values()
        mine = [p.record for (known, _), p in self._published.items() if known == name]
        return merge(copied(record) for record in [*(entry.record for entry in entries), *mine])

    async def services(self) -> list[str]:
        names = (await self._ask(_zone.LIST)).names
        return sorted(names.union(name for name, _ in self._published))

    async def watch(self, name: str | None = None) -> AsyncIterator[Change]:
        watch = _Watch(name, Feed(_FEED_BYTES), OrderedDict())
        self._open()
        self._watches.add(watch)
        try:
            while change := await watch.feed.next():
                yield change
        finally:
            self._watches.discard(watch)
            self._release()

    async def close(self) -> None:
        for key in list(self._published):
            self._withdraw(key)
        for watch in self._watches:
            watch.feed.end()
        self._watches.clear()
        for lookup in list(self._lookups.values()):
            lookup.finish(Unavailable("mdns: the registry was closed"))
        self._release()

    async def _instance(self, record: Record, node: Node) -> _zone.Instance:
        host, port = split_address(node.address)
        ip = await _resolve(host)
        instance = _zone.instance(
            record, node, ip, port, domain=self._domain, host=socket.gethostname()
        )
        _zone.dns_name(f"{record.name}.{_zone.LIST}", self._domain)
        size = len(_dns.encode(instance.probe(), compress=False))
        if size > _DATAGRAM:
            raise BadRequest(
                f"mdns cannot carry the record of {record.name!r}: it takes {size} bytes of"
                f" {_DATAGRAM}; register fewer endpoints or less metadata, or use another registry"
            )
        return instance

    def _publish(
        self, multicast: Multicast, record: Record, instance: _zone.Instance, ttl: float | None
    ) -> None:
        loop = asyncio.get_running_loop()
        key = (record.name, record.nodes[0].id)
        known = self._published.get(key)
        if known is None or known.instance != instance:
            steps = _steps(instance, new=known is None)
            data, pause = next(steps)
            multicast.send(data)
            if known is not None:
                known.cancel()
            known = self._published[key] = _Published(record, instance)
            known.announcing = loop.call_later(pause, self._announce, known, steps)
        if known.expiry is not None:
            known.expiry.cancel()
        known.expiry = None if ttl is None else loop.call_later(ttl, self._expire, key)

    def _announce(self, published: _Published, steps: Iterator[tuple[bytes, float]]) -> None:
        published.announcing = None
        step = next(steps, None)
        if step is None:
            if not self._heard:
                logger.warning(
                    "mdns: multicast leaves this machine but nothing comes in, so nobody will find"
                    " %s: let UDP port 5353 through, or choose another registry",
                    published.record.name,
                )
            return
        data, pause = step
        self._send(data)
        loop = asyncio.get_running_loop()
        published.announcing = loop.call_later(pause, self._announce, published, steps)

    def _expire(self, key: tuple[str, str]) -> None:
        self._withdraw(key)
        self._release()

    def _withdraw(self, key: tuple[str, str]) -> None:
        published = self._published.pop(key, None)
        if published is not None:
            published.cancel()
            self._send(_dns.encode(published.instance.announcement(ttl=0), compress=False))

    def _send(self, data: bytes) -> None:
        try:
            if self._multicast is not None:
                self._multicast.send(data)
        except Unavailable as error:
            logger.warning("%s", error)

    def _open(self) -> Multicast:
        if self._multicast is None:
            self._multicast = Multicast(self._received, listen=True, interface=self._interface)
            self._heard = False
        return self._multicast

    def _release(self) -> None:
        if self._multicast is not None and not self._published and not self._watches:
            self._multicast.close()
            self._multicast = None

    def _received(self, multicast: Multicast, data: bytes, address: Address) -> None:
        self._heard = True
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
        services = {name for name, _ in self._published}
        host = socket.gethostname()
        instances = [published.instance for published in self._published.values()]
        instances += [_zone.listed(name, domain=self._domain, host=host) for name in services]
        for question in query.questions[:_QUESTIONS]:
            for instance in instances:
                # One node a message: Go Micro reads no more than one from each.
                if answers := instance.answer(question):
                    reply = _zone.reply(query, question, answers)
                    multicast.reply(_dns.encode(reply), address)

    def _tell(self, message: _dns.Message, address: Address) -> None:
        if not self._watches:
            return
        for entry in _zone.read_entries(message, self._domain):
            if isinstance(entry, BadRequest):
                self._complaints.add(entry, address)
                continue
            for watch in self._watches:
                if watch.name in (None, entry.record.name):
                    _feed(watch, entry)

    async def _ask(self, name: str) -> Lookup:
        lookup = self._lookups.get(name)
        if lookup is None:
            lookup = Lookup(name, self._domain, self._timeout, self._interface, self._complaints)
            self._lookups[name] = lookup
            lookup.done.add_done_callback(lambda _: self._lookups.pop(name, None))
        return await lookup.wait()


def _steps(instance: _zone.Instance, *, new: bool) -> Iterator[tuple[bytes, float]]:
    """Yield what to send and the seconds until the next, as Go Micro does."""
    if new:
        probe = _dns.encode(instance.probe(), compress=False)
        for _ in range(3):
            yield probe, random.uniform(0, 0.25)
    announcement = _dns.encode(instance.announcement(), compress=False)
    for pause in (1.0, 2.0, 0.0):
        yield announcement, pause


def _feed(watch: _Watch, entry: _zone.Entry) -> None:
    key = (entry.record.name, entry.record.nodes[0].id)
    before = watch.seen.pop(key, None)
    watch.seen[key] = now = (entry.mark, entry.gone)
    if len(watch.seen) > _REMEMBERED:
        watch.seen.popitem(last=False)
    if now == before:
        return
    action = "delete" if entry.gone else "update" if before and not before[1] else "create"
    watch.feed.put(Change(action, copied(entry.record)), entry.weight)


async def _resolve(host: str) -> IPv4Address | IPv6Address:
    try:
        ip = ip_address(host)
    except ValueError:
        try:
            async with asyncio.timeout(_RESOLVE_TIMEOUT):
                found = await asyncio.get_running_loop().getaddrinfo(
                    host, None, type=socket.SOCK_STREAM
                )
            ip = ip_address(min(found, key=lambda item: item[0] != socket.AF_INET)[4][0])
        except (OSError, ValueError, UnicodeError, TimeoutError) as error:
            raise BadRequest(f"mdns needs an IP address, and {host!r} has none: {error}") from None
    if ip.is_unspecified or ip.is_multicast or getattr(ip, "scope_id", None):
        raise BadRequest(f"{host!r} is no address others can reach: register the machine's own")
    return ip
