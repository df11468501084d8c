"""Module tcp is the transport of Shoal's own protocol: many sessions on one connection."""

from __future__ import annotations

from collections.abc import Mapping

from shoal.errors import Unavailable
from shoal.tls import Tls
from shoal.transport import NO_METADATA, Accept, Listener, Socket, Transport
from shoal.transport._native import Native
from shoal.transport._native_frames import METADATA
from shoal.transport._native_link import NotNative
from shoal.transport._tcp import ID, TcpListener


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
        self._dial_timeout = dial_timeout
        self._native = Native(
            tls, max_message=max_message, dial_timeout=dial_timeout, keep_alive=keep_alive
        )

    def __repr__(self) -> str:
        return f"TcpTransport({self._native!r})"

    async def dial(self, address: str, metadata: Mapping[str, str] = NO_METADATA) -> Socket:
        try:
            return await self._native.dial(address)
        except NotNative as error:
            raise Unavailable(f"{address} is no transport of this kind: {error}", id=ID) from error

    async def listen(self, address: str, accept: Accept) -> Listener:
        native = self._native
        listener = TcpListener(
            accept, native.connection, native.listen_context(), self._dial_timeout, METADATA
        )
        await listener.open(address)
        return listener
