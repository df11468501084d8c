"""Module http is the transport Go Micro has by default: HTTP/1.1 as framing over TCP or TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from shoal.tls import LiveContext, Tls
from shoal.transport import NO_METADATA, Accept, Listener, Socket, Transport
from shoal.transport._http1 import BUFFER, ClientSocket, ServerSocket
from shoal.transport._tcp import TcpListener, dial


class HttpTransport(Transport):
    """Sockets that are HTTP/1.1 connections, one exchange or stream at a time on each.

    `max_message` bounds a body in bytes, `dial_timeout` and `read_timeout` are seconds: the
    former for a connection with its TLS handshake, the latter for one whole message from its
    first byte, and for the first message of a connection.
    """

    def __init__(
        self,
        address: str = "",
        *,
        tls: Tls | None = None,
        max_message: int = 4 * 1024 * 1024,
        dial_timeout: float = 5.0,
        read_timeout: float = 30.0,
    ) -> None:
        self._tls = tls
        self._secure: LiveContext | None = None
        self._max_message = max_message
        self._dial_timeout = dial_timeout
        self._read_timeout = read_timeout
        self._shared: tuple[asyncio.AbstractEventLoop, memoryview] | None = None

    def __repr__(self) -> str:
        return f"HttpTransport(tls={self._tls!r}, max_message={self._max_message})"

    async def dial(self, address: str, metadata: Mapping[str, str] = NO_METADATA) -> Socket:
        if self._tls is not None and self._secure is None:
            self._secure = LiveContext(self._tls, self._tls.client_context)
        return await dial(address, lambda: self._dialled(address), self._secure, self._dial_timeout)

    async def listen(self, address: str, accept: Accept) -> Listener:
        secure = LiveContext(self._tls, self._tls.server_context) if self._tls else None
        listener = TcpListener(accept, lambda _: self._accepted(), secure, self._dial_timeout)
        await listener.open(address)
        return listener

    @property
    def _buffer(self) -> memoryview:
        # A loop reads and hands over in one go, so all sockets of a loop can share a buffer.
        loop = asyncio.get_running_loop()
        shared = self._shared
        if shared is None or shared[0] is not loop:
            shared = self._shared = (loop, memoryview(bytearray(BUFFER)))
        return shared[1]

    # What else speaks HTTP over these connections, the broker, has its own kinds of sockets.

    def _dialled(self, address: str) -> ClientSocket:
        return ClientSocket(address, self._buffer, self._max_message, self._read_timeout)

    def _accepted(self) -> ServerSocket:
        return ServerSocket(self._buffer, self._max_message, self._read_timeout)
