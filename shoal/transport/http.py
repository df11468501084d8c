"""Module http is the transport Go Micro has by default: HTTP/1.1 as framing over TCP or TLS."""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Callable

from shoal.errors import Unavailable
from shoal.tls import Tls
from shoal.transport import Accept, Listener, Socket, Transport
from shoal.transport._accepted import AcceptedSockets
from shoal.transport._address import candidates, join, split
from shoal.transport._http1 import BUFFER, ClientSocket, ServerSocket

ID = "shoal.transport"


class HttpTransport(Transport):
    """Sockets that are HTTP/1.1 connections, one exchange or stream at a time on each.

    `max_message` bounds a body in bytes, `dial_timeout` and `read_timeout` are seconds: the
    latter for one whole message from its first byte, and for the first message of a connection.
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
        self._client_ssl: ssl.SSLContext | None = None
        self._max_message = max_message
        self._dial_timeout = dial_timeout
        self._read_timeout = read_timeout
        self._buffer = memoryview(bytearray(BUFFER))

    def __repr__(self) -> str:
        return f"HttpTransport(tls={self._tls!r}, max_message={self._max_message})"

    async def dial(self, address: str) -> Socket:
        host, ports = split(address)
        if self._tls is not None and self._client_ssl is None:
            self._client_ssl = self._tls.client_context()
        try:
            async with asyncio.timeout(self._dial_timeout):
                _, socket = await asyncio.get_running_loop().create_connection(
                    lambda: self._dialled(address),
                    host or "localhost",
                    ports[0],
                    ssl=self._client_ssl,
                )
        except TimeoutError:
            raise Unavailable(
                f"{address} did not accept a connection within {self._dial_timeout:g} s", id=ID
            ) from None
        except ssl.SSLError as error:
            raise Unavailable(f"no TLS connection to {address}: {error}", id=ID) from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise Unavailable(f"cannot connect to {address}: {reason}", id=ID) from error
        return socket

    async def listen(self, address: str, accept: Accept) -> Listener:
        context = self._tls.server_context() if self._tls else None
        listener = _HttpListener(accept)
        for host, port in candidates(address):
            try:
                await listener.open(
                    host,
                    port,
                    lambda: self._accepted(listener.sockets.add),
                    context,
                )
                return listener
            except OSError as error:
                reason = error
        if reason.errno == errno.EADDRINUSE:
            raise Unavailable(f"cannot listen at {address}: it is taken already", id=ID)
        raise Unavailable(f"cannot listen at {address}: {reason.strerror or reason}", id=ID)

    # What else speaks HTTP over these connections, the broker, has its own kinds of sockets.

    def _dialled(self, address: str) -> ClientSocket:
        return ClientSocket(address, self._buffer, self._max_message, self._read_timeout)

    def _accepted(self, accepted: Callable[[ServerSocket], None]) -> ServerSocket:
        return ServerSocket(accepted, self._buffer, self._max_message, self._read_timeout)


class _HttpListener(Listener):
    """Owns the listening socket and a task for each connection."""

    def __init__(self, accept: Accept) -> None:
        self.address = ""
        self.sockets = AcceptedSockets(accept)
        self._server: asyncio.Server | None = None

    async def open(
        self,
        host: str,
        port: int,
        factory: Callable[[], ServerSocket],
        context: ssl.SSLContext | None,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            factory, host or None, port, ssl=context, backlog=1024, reuse_address=True
        )
        bound = self._server.sockets[0].getsockname()
        self.address = join(host or "0.0.0.0", bound[1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        await self.sockets.close()
