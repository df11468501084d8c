"""Module _consul_nodes keeps the nodes of this process registered with Consul."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import msgspec

from shoal.errors import BadRequest, Error, NotFound, Unavailable
from shoal.registry import Node, Record
from shoal.registry._consul_agents import Agents
from shoal.registry._consul_settings import ConsulSettings
from shoal.registry._consul_tags import registration
from shoal.registry._consul_watch import Backoff

logger = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode


@dataclass(slots=True)
class _Registered:
    """A node, and the agents it may be known to; the one at the end was told last."""

    payload: dict[str, Any]
    until: float  # when its owner should have refreshed it, by the loop's clock
    agents: list[str] = field(default_factory=list[str])
    told: bool = False  # that agent knows this payload, as far as we know

    @property
    def path(self) -> str:
        return quote(self.payload["ID"], safe="")

    @property
    def has_ttl(self) -> bool:
        return "TTL" in self.payload.get("Check", {})


class Nodes:
    """Registers nodes, and registers them again when their agent has forgotten them.

    A node whose owner does not refresh it in time is left alone: its check ends it.
    """

    def __init__(
        self, agents: Agents, settings: ConsulSettings, problems: dict[object, Exception]
    ) -> None:
        """Write into `problems` why nodes may not be known, with this object for a key."""
        self._agents = agents
        self._settings = settings
        self._problems = problems
        self._nodes: dict[str, _Registered] = {}
        self._lock = asyncio.Lock()
        self._guard: asyncio.Task[None] | None = None

    def ids(self) -> list[str]:
        """Return the ids of the nodes that are registered, sorted."""
        return sorted(self._nodes)

    async def register(self, record: Record, node: Node, ttl: float | None) -> None:
        """Register a node or refresh it; raises Unavailable, and BadRequest if Consul does."""
        payload = registration(record, node, ttl, self._settings)
        until = asyncio.get_running_loop().time() + (float("inf") if ttl is None else ttl)
        async with self._lock:
            known = self._nodes.get(node.id)
            one = _Registered(payload, until)
            if known is not None:
                one.agents, one.told = known.agents, known.told and known.payload == payload
            self._nodes[node.id] = one
            try:
                await self._refresh(one)
            except BaseException as error:
                if known is None:
                    del self._nodes[node.id]  # whoever wants it tries again
                elif isinstance(error, BadRequest):
                    self._nodes[node.id] = known
                raise
        if self._guard is None:
            self._guard = asyncio.get_running_loop().create_task(self._keep())

    async def deregister(self, id: str) -> None:
        """Take a node from every agent it may be known to; raises Unavailable.

        Agents that were left for another one because they are gone end it by its check.
        """
        problem: Error | None = None
        async with self._lock:
            known = self._nodes.pop(id, None)
            for agent in (known.agents if known else None) or [""]:
                problem = None  # that of the last one counts
                try:
                    await self._write(f"agent/service/deregister/{quote(id, safe='')}", agent=agent)
                except NotFound:
                    continue
                except Error as error:
                    problem = error
        if problem is not None:
            raise Unavailable(str(problem)) from problem

    async def close(self) -> None:
        """Deregister all; raises Unavailable, with nothing left that would register again."""
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.cancel()
            await asyncio.wait([guard])
        try:
            async with asyncio.timeout(self._settings.timeout):
                for id in self.ids():
                    await self.deregister(id)
        except TimeoutError as error:
            raise Unavailable("consul has not answered in time") from error
        finally:
            self._nodes.clear()
            self._problems.pop(self, None)
            self._lock = asyncio.Lock()  # the next use may be on another event loop

    async def _refresh(self, one: _Registered) -> None:
        """Say that a node lives, to the agent that knows it; raises Unavailable, BadRequest."""
        if one.told:
            try:
                await self._confirm(one)
                return
            except Error as error:
                logger.info("consul: registering %s again: %s", one.payload["ID"], error)
        one.told = False
        agent = await self._tell(_encode(one.payload), one.agents[-1] if one.agents else "")
        one.agents[:] = [*(known for known in one.agents if known != agent), agent]
        if one.has_ttl:
            await self._confirm(one)
        one.told = True

    async def _tell(self, data: bytes, agent: str) -> str:
        """Register with an agent if one is given, else or then with any; return which it was."""
        if agent:
            try:
                return await self._write("agent/service/register", data, agent=agent)
            except Unavailable as error:
                logger.debug("%s", error)
        return await self._write("agent/service/register", data, agent="")

    async def _confirm(self, one: _Registered) -> None:
        """Pass a node's check; of one that Consul itself checks, see that it is known."""
        if one.has_ttl:
            path = f"agent/check/pass/service:{one.path}"
            await self._write(path, agent=one.agents[-1], note="")
        else:
            path = f"agent/service/{one.path}"
            await self._agents.read(path, self._settings.scope(), agent=one.agents[-1])

    async def _write(self, path: str, data: bytes = b"", *, agent: str, **more: str) -> str:
        """Return the agent that was told."""
        parameters = {**self._settings.scope(), **more}
        return (await self._agents.write(path, parameters, data, agent=agent)).agent

    async def _keep(self) -> None:
        """Look after the first node: an agent that has forgotten it has forgotten all."""
        backoff = Backoff()
        hashes: dict[str, str] = {}
        while self._forget_given_up():
            id, one = next(iter(self._nodes.items()))
            try:
                if not one.told:
                    raise Unavailable(f"{id} may not be registered")
                hashes = {id: await self._unchanged(one, hashes.get(id, ""))}
                backoff.failures = 0
                continue
            except Error as error:
                logger.debug("consul: %s", error)
            hashes = {}
            await backoff.wait()
            self._forget_given_up()
            try:
                async with self._lock:
                    for each in list(self._nodes.values()):
                        await self._refresh(each)
                self._problems.pop(self, None)
            except Error as error:
                self._problems[self] = error
        self._guard = None

    def _forget_given_up(self) -> bool:
        """Return whether there are nodes that their owners still want."""
        now = asyncio.get_running_loop().time()
        for id in [id for id, one in self._nodes.items() if one.until < now]:
            del self._nodes[id]
        if not self._nodes:
            self._problems.pop(self, None)
        return bool(self._nodes)

    async def _unchanged(self, one: _Registered, hash: str) -> str:
        """Return the hash of what an agent knows of a node, after a while if it is this one.

        An agent that ends closes the connection, and one that has forgotten the node says so.
        """
        parameters, wait = self._settings.scope(), 0.0
        if hash:
            parameters["hash"], wait = hash, self._settings.wait
        path = f"agent/service/{one.path}"
        return (await self._agents.read(path, parameters, wait=wait, agent=one.agents[-1])).hash
