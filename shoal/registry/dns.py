"""Module dns is a registry that only reads: services that nameservers know."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from urllib.parse import parse_qsl

from shoal.errors import BadRequest, Error
from shoal.registry import Change, Record, Registry
from shoal.registry._differences import Looks
from shoal.registry._dns_nameservers import Nameservers
from shoal.registry._dns_services import Found, Services
from shoal.registry._records import checked, copied, join_address, split_address

logger = logging.getLogger(__name__)

PORT = 53
_METADATA = {"protocol": "mucp", "transport": "http"}


class DnsRegistry(Registry):
    """Finds nodes in SRV and address records, those of Consul's DNS and of Kubernetes among them.

    A service is looked for as `_name._tcp.domain` (RFC 6763 and RFC 2782) and as `name.domain`; a
    name may also be `host:port`, or a whole `_name._tcp.domain`. Watches look again when records
    are out of date.

    Registering is accepted and told to nobody: services start as with any other registry, but
    others find them only if DNS says so.
    """

    tells_others = False  # of what is registered

    def __init__(
        self,
        address: str = "",
        *,
        port: int = 0,
        protocol: str = "tcp",
        metadata: Mapping[str, str] | None = None,
        shortest: float = 2.0,
        longest: float = 60.0,
        timeout: float = 5.0,
        tcp: bool = True,
    ) -> None:
        """Ask the nameservers of `host:port,host:port/domain`, or if there are none, the system's.

        `port` is that of services of which there are only addresses. Nodes have `metadata`, if
        DNS has none; it says that they speak Go Micro's protocol over HTTP. Watches look again
        after `shortest` to `longest` seconds. Consul tells of all nodes by TCP only. Raises
        BadRequest for an address that cannot be read.
        """
        before, _, query = address.partition("?")
        servers, _, domain = before.partition("/")
        options = dict(parse_qsl(query, keep_blank_values=True))
        port = _number(options.pop("port", ""), port)
        if "tcp" in options:
            tcp = options.pop("tcp").lower() not in ("0", "false")
        if options:
            raise BadRequest(
                f"dns: the address has no setting {min(options)!r}: known are port, tcp"
            )
        self._nameservers = Nameservers(
            [_server(server) for server in servers.split(",") if server.strip()],
            domain=domain.strip("./"),
            timeout=timeout,
            tcp=tcp,
        )
        self._services = Services(
            self._nameservers,
            protocol=protocol,
            port=port,
            metadata=_METADATA if metadata is None else metadata,
        )
        self._shortest, self._longest = shortest, max(longest, shortest)
        self._problems: dict[Looks, Exception] = {}
        self._watches: dict[Looks, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        problem = f", error={str(self.error)!r}" if self.error else ""
        return f"DnsRegistry({str(self._nameservers)!r}, watches={len(self._watches)}{problem})"

    @property
    def error(self) -> Exception | None:
        """Why a watch does not hear of changes, None if all is well."""
        return next(iter(self._problems.values()), None)

    async def register(self, record: Record, *, ttl: float | None = None) -> None:
        """Tell nobody: DNS is read only. Raises BadRequest as every registry does."""
        checked(record)
        addresses = ", ".join(node.address for node in record.nodes)
        logger.debug("dns: %s is found at %s only if DNS says so", record.name, addresses)

    async def deregister(self, record: Record) -> None:
        """Do nothing: DNS is read only."""

    async def get(self, name: str) -> list[Record]:
        for watch in list(self._watches):
            if watch.name in (None, name):
                await watch.began.wait()  # so that a look-up and a watch miss nothing between
        return (await self._services.look(name)).records

    async def services(self) -> list[str]:
        """Return the names the domain lists (RFC 6763); raises Unavailable if it has no list."""
        return await self._services.names()

    async def watch(self, name: str | None = None) -> AsyncIterator[Change]:
        watch = Looks(name)
        self._watches[watch] = asyncio.get_running_loop().create_task(self._follow(watch))
        try:
            while change := await watch.feed.next():
                yield change
        finally:
            await self._end(watch)

    async def close(self) -> None:
        for watch in list(self._watches):
            await self._end(watch)
        self._nameservers.reset()

    async def _end(self, watch: Looks) -> None:
        task = self._watches.pop(watch, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    async def _follow(self, watch: Looks) -> None:
        """Look again and again; while nobody answers, what was known last is true."""
        try:
            while True:
                pause = self._shortest
                try:
                    found = await self._look(watch.name)
                except Error as error:
                    if not watch.began.is_set():
                        watch.end(error)
                        return
                    self._problems[watch] = error
                else:
                    self._problems.pop(watch, None)
                    watch.add(found.records)
                    pause = min(max(found.ttl, self._shortest), self._longest)
                await asyncio.sleep(pause)
        finally:
            self._problems.pop(watch, None)
            watch.end()

    async def _look(self, name: str | None) -> Found:
        if name is not None:
            return await self._services.look(name)
        found = [await self._services.look(each) for each in await self._services.names()]
        records = [copied(record) for one in found for record in one.records]
        return Found(records, min((one.ttl for one in found), default=0.0))


def _server(text: str) -> tuple[str, int]:
    text = text.strip()
    bare = text.strip("[]")
    if ":" not in text or text.endswith("]") or (bare.count(":") > 1 and text[0] != "["):
        text = join_address(bare, PORT)
    return split_address(text)


def _number(text: str, default: int) -> int:
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536):
        raise BadRequest(f"dns: port must be a number up to 65535, not {text!r}")
    return int(text)
