"""Module tcp is the transport of Shoal's own protocol: many sessions on one connection."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from shoal.errors import Unavailable
from shoal.tls import LiveContext, Tls
from shoal.transport import NO_METADATA, Accept, Listener, Socket, Transport
from shoal.transport._accepted import AcceptedSockets
from shoal.transport._native_connection import NativeConnection, NotNative
from shoal.transport._native_dial import NativeDialler
from shoal.transport._native_frames import METADATA, Limits
from shoal.transport._tcp import ID, TcpListener

BUFFER = 256 * 1024


class TcpTransport(Transport):
    """Sockets that are sessions on a connection all sockets to an address share.

    `max_message` bounds a body in bytes; seconds are `dial_timeout`, for a connection with its
    TLS handshake and the peer's answer, and `keep_alive`, of silence after which a connection is
    given up.
    """

    def __init__(
        self,
        address: str = "",
        *,
        tls: Tls | None = None,
        max_message: int = 4 * 1024 * 1024,
        dial_timeout: float = 5.0,
        keep_alive: float = 15.0,
    ) -> None:
        self._tls = tls
        self._secure: LiveContext | None = None
        self._limits = Limits(max_message)
        self._dial_timeout = dial_timeout
        self._keep_alive = keep_alive
        self._shared: tuple[asyncio.AbstractEventLoop, memoryview] | None = None
        self._dialler = NativeDialler(self._link, self._dial_context, dial_timeout)

    def __repr__(self) -> str:
        return f"TcpTransport(tls={self._tls!r}, {self._dialler!r})"

    async def dial(self, address: str, metadata: Mapping[str, str] = NO_METADATA) -> Socket:
        try:
            return await self._dialler.dial(address)
        except NotNative as error:
            raise Unavailable(f"{address} is no transport of this kind: {error}", id=ID) from error

    async def listen(self, address: str, accept: Accept) -> Listener:
        secure = LiveContext(self._tls, self._tls.server_context) if self._tls else None
        listener = TcpListener(accept, self._link, secure, self._dial_timeout, METADATA)
        await listener.open(address)
        return listener

    def _dial_context(self) -> LiveContext | None:
        if self._tls is not None and self._secure is None:
            self._secure = LiveContext(self._tls, self._tls.client_context)
        return self._secure

    def _link(self, sockets: AcceptedSockets | None = None) -> NativeConnection:
        return NativeConnection(
            self._buffer,
            self._limits,
            accept=sockets.add if sockets is not None else None,
            keep_alive=self._keep_alive,
            timeout=self._dial_timeout,
        )

    @property
    def _buffer(self) -> memoryview:
        # A loop reads and hands over in one go, so all connections of a loop can share a buffer.
        loop = asyncio.get_running_loop()
        shared = self._shared
        if shared is None or shared[0] is not loop:
            shared = self._shared = (loop, memoryview(bytearray(BUFFER)))
        return shared[1]
