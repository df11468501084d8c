"""Module consul is a registry of services that Consul's agents know and check."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator

from shoal.errors import Error
from shoal.registry import Change, Record, Registry
from shoal.registry._consul_agents import Agents
from shoal.registry._consul_nodes import Nodes
from shoal.registry._consul_settings import (
    ConsulSettings,
    HttpCheck,
    TcpCheck,
    address_tls,
    read_address,
)
from shoal.registry._consul_watch import Reader, Watch
from shoal.registry._records import checked
from shoal.tls import Tls

__all__ = ["ConsulRegistry", "ConsulSettings", "HttpCheck", "TcpCheck"]

logger = logging.getLogger(__name__)


class ConsulRegistry(Registry):
    """Registers nodes with an agent of Consul as Go Micro does, and finds those of all agents.

    Format: Go Micro v6, registry/consul. Metadata of the service itself is not carried. What an
    agent has forgotten is registered again at once, with another agent if that one is gone;
    watches go on where they were.
    """

    def __init__(
        self, address: str = "", *, tls: Tls | None = None, settings: ConsulSettings | None = None
    ) -> None:
        """Take agents as `host:port,host:port?token_file=/run/secrets/consul&datacenter=eu`.

        Without an address it is CONSUL_HTTP_ADDR, or 127.0.0.1:8500. Raises BadRequest.
        """
        given = settings or ConsulSettings()
        agents, chosen = read_address(address, given, os.environ)
        self._agents = Agents(agents, tls or address_tls(address, os.environ), chosen)
        self._reader = Reader(self._agents, chosen)
        self._problems: dict[object, Exception] = {}
        self._nodes = Nodes(self._agents, chosen, self._problems)
        self._watches: dict[Watch, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        problem = f", error={str(self.error)!r}" if self.error else ""
        return (
            f"ConsulRegistry({str(self._agents)!r}, nodes={self._nodes.ids()},"
            f" watches={len(self._watches)}{problem})"
        )

    @property
    def error(self) -> Exception | None:
        """Why a node may not be known now, or a watch not hear of changes; None if all is well."""
        return next(iter(self._problems.values()), None)

    async def register(self, record: Record, *, ttl: float | None = None) -> None:
        record = checked(record)
        for node in record.nodes:
            await self._nodes.register(record, node, ttl)

    async def deregister(self, record: Record) -> None:
        for node in record.nodes:
            await self._nodes.deregister(node.id)

    async def get(self, name: str) -> list[Record]:
        for watch in list(self._watches):
            if watch.name in (None, name):
                await watch.began.wait()  # so that a look-up and a watch miss nothing between
        return (await self._reader.service(name))[0] if name else []

    async def services(self) -> list[str]:
        return await self._reader.names()

    async def watch(self, name: str | None = None) -> AsyncIterator[Change]:
        def failed(error: Exception | None) -> None:
            self._problems.pop(watch, None)
            if error is not None:
                self._problems[watch] = error

        watch = Watch(self._reader, name, failed)
        self._watches[watch] = asyncio.get_running_loop().create_task(watch.follow())
        try:
            while change := await watch.feed.next():
                yield change
        finally:
            await self._end(watch)

    async def close(self) -> None:
        """Deregister what this side registered, for as long as agents answer in time."""
        for watch in list(self._watches):
            await self._end(watch)
        try:
            await self._nodes.close()
        except Error as error:
            logger.warning("nodes could not be deregistered: %s", error)
        finally:
            await self._agents.close()

    async def _end(self, watch: Watch) -> None:
        task = self._watches.pop(watch, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task])
