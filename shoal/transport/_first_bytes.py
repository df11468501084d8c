"""Module _first_bytes tells by the first byte of a connection which protocol it speaks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from shoal.transport._accepted import Accepted, AcceptedSockets
from shoal.transport._connection import Connection
from shoal.transport._native_frames import MAGIC

logger = logging.getLogger(__name__)


class FirstBytes(Accepted, asyncio.BufferedProtocol):
    """Stands in for a connection until something comes on it."""

    def __init__(
        self, choose: Callable[[bool], Connection], buffer: memoryview, timeout: float
    ) -> None:
        """Let `choose` make the connection, told whether it is native.

        It must read into the same buffer.
        """
        self._choose = choose
        self._buffer = buffer
        self._timeout = timeout
        self._transport: Any = None
        self._loop = asyncio.get_running_loop()
        self._chosen: asyncio.Future[Connection | None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None

    async def serve(self, sockets: AcceptedSockets) -> None:
        try:
            connection = await asyncio.shield(self._chosen)
        except asyncio.CancelledError:
            if self._chosen.done() and (chosen := self._chosen.result()) is not None:
                await chosen.close()
            self._transport.abort()
            raise
        if connection is not None:
            await connection.serve(sockets)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._timer = self._loop.call_later(self._timeout, self._too_slow)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._cancel_timer()
        connection = self._choose(self._buffer[0] == MAGIC[0])
        transport = self._transport
        transport.set_protocol(connection)
        connection.connection_made(transport)
        self._chosen.set_result(connection)
        connection.buffer_updated(nbytes)

    def connection_lost(self, exc: Exception | None) -> None:
        self._cancel_timer()
        if not self._chosen.done():
            self._chosen.set_result(None)

    def _too_slow(self) -> None:
        name = self._transport.get_extra_info("peername")
        logger.debug("%s sent nothing within %g s", name, self._timeout)
        self._transport.abort()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
