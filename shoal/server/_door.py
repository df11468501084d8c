"""Module _door turns away who connects when there is no more room."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from shoal import wire
from shoal.errors import Error, Unavailable
from shoal.transport import Socket

if TYPE_CHECKING:
    from shoal.server.rpc import RpcServer

logger = logging.getLogger(__name__)

AT_ONCE = 100  # who is told why; for others there is not even room for that
PATIENCE = 1.0  # seconds for the request that is answered so
QUIET = 10.0  # seconds between two lines in the log


class Door:
    """Answers what comes in the first second of a connection that is one too many, and ends it."""

    def __init__(self) -> None:
        self._waiting = 0
        self._turned_away = 0
        self._told = float("-inf")

    def __repr__(self) -> str:
        return f"Door({self._turned_away} turned away)"

    async def turn_away(self, server: RpcServer, socket: Socket) -> None:
        """Say that there is no room, in a way that lets the peer try another node."""
        self._turned_away += 1
        most = server.settings.connections
        now = server.loop.time()
        if now >= self._told + QUIET:
            self._told = now
            logger.warning(
                "%s has all of its %d connections open, and has turned away %d",
                server.name, most, self._turned_away,
            )  # fmt: skip
        if self._waiting >= AT_ONCE:
            return
        self._waiting += 1
        try:
            async with asyncio.timeout(PATIENCE):
                while True:  # who closes first may cut off its own answer
                    header = (await socket.recv()).headers()
                    error = Unavailable(f"{server.name} has {most} connections open already")
                    reply = server.failed(header, error)
                    reply.header[wire.REFUSED] = "1"
                    await socket.send(reply)
        except (Error, TimeoutError) as error:
            logger.debug("%s is gone, or asked for nothing: %s", socket.remote, error)
        finally:
            self._waiting -= 1
