"""Module _redis_keeper keeps a connection to Redis: it comes back, and says how it is."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from shoal.broker._redis_link import ID, Link, Push, Refused, connect
from shoal.broker._redis_settings import RedisSettings, Server
from shoal.errors import Error, Unavailable
from shoal.tls import Tls

logger = logging.getLogger(__name__)

PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds between two rounds of attempts to connect

Check = Callable[[Link], None]
"""Raises Unavailable if a server is not one to use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ways:
    """How to reach what server; the connections of one broker have it in common."""

    servers: Sequence[Server]
    settings: RedisSettings
    tls: Tls | None
    limit: int
    check: Check

    async def open(self, push: Push | None) -> Link:
        """Return a connection to the first server that is fit; raises Unavailable."""
        errors: list[str] = []
        for server in self.servers:
            try:
                link = await connect(server, self.settings, self.tls, limit=self.limit, push=push)
                try:
                    self.check(link)
                except BaseException:
                    await link.close()
                    raise
                return link
            except Error as error:
                errors.append(str(error))
        raise Unavailable("; ".join(errors), id=ID)


class Keeper:
    """One connection, made again whenever it breaks, until it is closed."""

    def __init__(
        self,
        ways: Ways,
        *,
        push: Push | None = None,
        begin: Callable[[Link], Awaitable[object]] | None = None,
    ) -> None:
        """Await `begin` on every new connection before anything else uses it."""
        self.error: Exception | None = None
        """Why there is no connection now."""
        self._ways = ways
        self._push = push
        self._begin = begin
        self._link: Link | None = None
        self._up = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        if self._link is not None:
            return f"<Keeper {self._link!r}>"
        return f"<Keeper without a connection: {self.error or 'not connected'}>"

    @property
    def address(self) -> str:
        """Which server it is connected to."""
        return str(self._link.server) if self._link is not None else ""

    async def connect(self) -> None:
        """Make the connection, and keep it from now on. Raises Unavailable if it cannot be."""
        async with self._lock:
            if self._task is None:
                link = await self._open()
                self.error = None
                self._task = asyncio.get_running_loop().create_task(self._keep(link))
                await self._up.wait()

    async def call(self, *words: str | bytes | int, wait: float = 0.0) -> Any:
        """Return the answer to a command, which may take `wait` seconds longer than others.

        Raises Refused, or Unavailable if there is no connection or it breaks meanwhile.
        """
        settings = self._ways.settings
        if self._link is not None and self._link.broken:  # `_keep` has not seen it yet
            self._link = None
            self._up.clear()
        if self._link is None and self._task is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(settings.patience):
                    await self._up.wait()
        link = self._link
        if link is None:
            raise Unavailable(str(self.error or "Redis is not connected"), id=ID)
        try:
            return await link.call(*words, timeout=settings.timeout + wait)
        except Refused as refused:
            if refused.code in ("READONLY", "MASTERDOWN", "NOAUTH"):
                link.fail(refused.error())  # another of the servers may be the primary now
            raise

    async def unblock(self, other: Keeper) -> None:
        """Have a command that waits in Redis answered now, asked over another connection."""
        id = self._link.info.get("id") if self._link is not None else None
        if id is not None:
            with suppress(Refused, Error):  # it may not be permitted
                await other.call("CLIENT UNBLOCK", id)

    async def close(self) -> None:
        """End it; what waits for a connection fails. Never raises."""
        self.error = Unavailable("the broker was disconnected", id=ID)
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
            self._up.set()  # whoever waits has waited in vain
            self._up.clear()

    async def _open(self) -> Link:
        link = await self._ways.open(self._push)
        try:
            if self._begin is not None:
                await self._begin(link)
        except Refused as refused:
            await link.close()
            raise refused.error() from refused
        except BaseException:
            await link.close()
            raise
        return link

    async def _keep(self, link: Link | None) -> None:
        pause = PAUSE
        while True:
            try:
                link = link or await self._open()
            except Exception as error:  # also of a function that tells the password
                logger.debug("no connection: %s", error)
                self.error = error
            else:
                if self.error is not None:
                    logger.info("Redis at %s is connected again", link.server)
                self.error, pause = None, PAUSE
                await self._use(link)
                logger.warning("%s", self.error)
                link = None
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _use(self, link: Link) -> None:
        self._link = link
        self._up.set()
        try:
            await self._watch(link)
        finally:
            self._up.clear()
            self._link = None
            self.error = self.error or link.error
            await link.close()

    async def _watch(self, link: Link) -> None:
        """Return when the connection has ended, or was found dead."""
        settings = self._ways.settings
        while not (await asyncio.wait([link.ended], timeout=settings.ping))[0]:
            if link.pushing:
                continue  # what was sent waits for a slow subscriber
            seen = link.reads
            try:
                async with asyncio.timeout(settings.timeout):
                    answer = await link.send("PING")
                    await asyncio.wait([link.ended, answer], return_when=asyncio.FIRST_COMPLETED)
            except TimeoutError:
                if link.reads == seen and not link.pushing:
                    late = f"Redis at {link.server} did not answer in {settings.timeout:g} s"
                    link.fail(Unavailable(late, id=ID))
            except Error as error:
                logger.debug("%s", error)  # it has ended
