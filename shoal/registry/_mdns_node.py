"""Module _mdns_node is a node this process answers for."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

from shoal.errors import BadRequest, Unavailable
from shoal.registry import Node, Record, _dns
from shoal.registry import _mdns_zone as zone
from shoal.registry._records import split_address

logger = logging.getLogger(__name__)

_DATAGRAM = 65_507  # bytes of data in the largest one IPv4 has
_RESOLVE_TIMEOUT = 5.0

# Seconds; how often and how fast is Go Micro's: v6, internal/util/mdns/server.go, probe().
_PROBE_PAUSE = 0.25
_PAUSES = (1.0, 2.0, 0.0)


class PublishedNode:
    """Announces a node when it comes, and says goodbye when it is withdrawn or its time is over."""

    def __init__(
        self, record: Record, instance: zone.Instance, send: Callable[[bytes], None]
    ) -> None:
        """Take a record with one node, and what sends a datagram to everybody."""
        self.record = record
        self.instance = instance
        self._send = send
        self._announcing: asyncio.TimerHandle | None = None
        self._expiry: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        state = "announcing" if self._announcing else "announced"
        return f"PublishedNode({self.record.nodes[0].id!r}, {state})"

    def announce(self, done: Callable[[], None], *, probe: bool) -> None:
        """Say three times that the node is here, and call `done` after the last time.

        With `probe`, ask first whether the name is taken, for other responders' sake: an id is
        made to be unique. Raises Unavailable if nothing can be sent.
        """
        steps = _announcements(self.instance, probe=probe)
        data, pause = next(steps)
        self._send(data)
        self._wait(pause, steps, done)

    def expire(self, ttl: float | None, expired: Callable[[], None]) -> None:
        """Call `expired` in so many seconds; a later call replaces an earlier one."""
        if self._expiry is not None:
            self._expiry.cancel()
        loop = asyncio.get_running_loop()
        self._expiry = None if ttl is None else loop.call_later(ttl, expired)

    def withdraw(self) -> None:
        """Say goodbye."""
        self.stop()
        self._try(_dns.encode(self.instance.announcement(ttl=0), compress=False))

    def stop(self) -> None:
        """Say nothing any more."""
        for timer in (self._announcing, self._expiry):
            if timer is not None:
                timer.cancel()
        self._announcing = self._expiry = None

    def _step(self, steps: Iterator[tuple[bytes, float]], done: Callable[[], None]) -> None:
        self._announcing = None
        step = next(steps, None)
        if step is None:
            done()
            return
        data, pause = step
        self._try(data)
        self._wait(pause, steps, done)

    def _wait(
        self, pause: float, steps: Iterator[tuple[bytes, float]], done: Callable[[], None]
    ) -> None:
        self._announcing = asyncio.get_running_loop().call_later(pause, self._step, steps, done)

    def _try(self, data: bytes) -> None:
        try:
            self._send(data)
        except Unavailable as error:
            logger.warning("%s", error)


async def instance_of(record: Record, node: Node, domain: str) -> zone.Instance:
    """Return what to say about a node; raises BadRequest if it cannot be said."""
    try:
        host, port = split_address(node.address)
    except BadRequest as error:  # a queue or subject of NATS or RabbitMQ has neither
        raise BadRequest(
            f"mdns registers hosts and ports, which {node.address!r} is not: with a transport of "
            "other addresses use another registry, such as etcd, consul or nats"
        ) from error
    ip = await _resolve(host)
    instance = zone.instance(record, node, ip, port, domain=domain, host=socket.gethostname())
    zone.dns_name(f"{record.name}.{zone.LIST}", domain)
    try:
        size = len(_dns.encode(instance.probe(), compress=False))
    except _dns.DnsError:  # more than a message can be
        size = sum(map(len, instance.txt))
    if size > _DATAGRAM:
        raise BadRequest(
            f"mdns cannot carry the record of {record.name!r}: it takes {size} bytes of"
            f" {_DATAGRAM}; register fewer endpoints or less metadata, or use another registry"
        )
    return instance


def _announcements(instance: zone.Instance, *, probe: bool) -> Iterator[tuple[bytes, float]]:
    if probe:
        question = _dns.encode(instance.probe(), compress=False)
        for _ in range(3):
            yield question, random.uniform(0, _PROBE_PAUSE)
    announcement = _dns.encode(instance.announcement(), compress=False)
    for pause in _PAUSES:
        yield announcement, pause


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
        except (OSError, ValueError, TimeoutError) as error:
            raise BadRequest(f"mdns needs an IP address, and {host!r} has none: {error}") from None
    if ip.is_unspecified or ip.is_multicast or getattr(ip, "scope_id", None):
        raise BadRequest(f"{host!r} is no address others can reach: register the machine's own")
    return ip
