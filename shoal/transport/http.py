"""Module http is the transport Go Micro has by default: HTTP/1.1 as framing over TCP or TLS.

At the same port Shoal's own protocol is spoken, by those that know of it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from shoal.tls import Tls
from shoal.transport import NO_METADATA, Accept, Listener, Socket, Transport
from shoal.transport._accepted import Accepted, AcceptedSockets
from shoal.transport._connection import Connection
from shoal.transport._first_bytes import FirstBytes
from shoal.transport._http1 import ClientSocket, ServerSocket
from shoal.transport._native import Native
from shoal.transport._native_frames import METADATA
from shoal.transport._native_link import NotNative
from shoal.transport._tcp import TcpListener, dial

logger = logging.getLogger(__name__)

REMEMBERED = 60.0  # seconds a node that announced the protocol and does not speak it is spared


class HttpTransport(Transport):
    """Sockets that are HTTP/1.1 connections, one exchange or stream at a time on each.

    To nodes whose metadata say so they are sessions of Shoal's own protocol instead, which all
    share a connection, unless `native` is false.

    `max_message` bounds a body in bytes, `dial_timeout`, `read_timeout` and `keep_alive` are
    seconds: for a connection with its TLS handshake; for one whole message from its first byte,
    and for the first message of a connection; and of silence on a native connection.
    """

    def __init__(
        self,
        address: str = "",
        *,
        tls: Tls | None = None,
        max_message: int = 4 * 1024 * 1024,
        dial_timeout: float = 5.0,
        read_timeout: float = 30.0,
        keep_alive: float = 15.0,
        native: bool = True,
    ) -> None:
        self._tls = tls
        self._max_message = max_message
        self._dial_timeout = dial_timeout
        self._read_timeout = read_timeout
        self._speaks_native = native
        self._native = Native(
            tls, max_message=max_message, dial_timeout=dial_timeout, keep_alive=keep_alive
        )
        self._foreign: dict[str, float] = {}  # addresses, and the loop's time to try them again

    def __repr__(self) -> str:
        native = f", {self._native!r}" if self._speaks_native else ""
        return f"HttpTransport(tls={self._tls!r}, max_message={self._max_message}{native})"

    async def dial(self, address: str, metadata: Mapping[str, str] = NO_METADATA) -> Socket:
        if metadata.items() >= METADATA.items() and self._speaks_native:
            now = asyncio.get_running_loop().time()
            if self._foreign.get(address, now) <= now:
                try:
                    return await self._native.dial(address)
                except NotNative as error:
                    logger.info("%s announces shoal-native, but %s: it gets HTTP", address, error)
                    if len(self._foreign) >= 1024:
                        self._foreign.clear()
                    self._foreign[address] = now + REMEMBERED
        context = self._native.dial_context()
        return await dial(address, lambda: self._dialled(address), context, self._dial_timeout)

    async def listen(self, address: str, accept: Accept) -> Listener:
        metadata: Mapping[str, str] = METADATA
        make: Callable[[AcceptedSockets], Accepted] = self._first_bytes
        if not self._speaks_native:
            make, metadata = self._http_only, NO_METADATA
        context = self._native.listen_context()
        listener = TcpListener(accept, make, context, self._dial_timeout, metadata)
        await listener.open(address)
        return listener

    def _first_bytes(self, sockets: AcceptedSockets) -> Accepted:
        def choose(native: bool) -> Connection:
            return self._native.connection(sockets) if native else self._accepted()

        return FirstBytes(choose, self._native.buffer, self._read_timeout)

    def _http_only(self, sockets: AcceptedSockets) -> Accepted:
        return self._accepted()

    # What else speaks HTTP over these connections, the broker, has its own kinds of sockets.

    @property
    def _buffer(self) -> memoryview:
        return self._native.buffer

    def _dialled(self, address: str) -> ClientSocket:
        return ClientSocket(address, self._buffer, self._max_message, self._read_timeout)

    def _accepted(self) -> ServerSocket:
        return ServerSocket(self._buffer, self._max_message, self._read_timeout)
