"""Module _native is Shoal's own protocol for one transport: connections made, shared, accepted."""

from __future__ import annotations

import asyncio
import weakref

from shoal.errors import Error, Unavailable
from shoal.tls import LiveContext, Tls
from shoal.transport._accepted import AcceptedSockets
from shoal.transport._native_connection import NativeConnection
from shoal.transport._native_frames import Limits
from shoal.transport._native_link import NotNative
from shoal.transport._native_session import NativeSession
from shoal.transport._tcp import ID, dial

BUFFER = 256 * 1024

Key = tuple[str, asyncio.AbstractEventLoop]


class Native:
    """One connection for each address and event loop, and what all connections have in common."""

    def __init__(
        self, tls: Tls | None, *, max_message: int, dial_timeout: float, keep_alive: float
    ) -> None:
        """Bound bytes of a body, and seconds until a connection can be used and of silence."""
        self._tls = tls
        self._limits = Limits(max_message)
        self._dial_timeout = dial_timeout
        self._keep_alive = keep_alive
        self._secure: LiveContext | None = None
        self._buffers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview]
        self._buffers = weakref.WeakKeyDictionary()
        self._links: dict[Key, NativeConnection] = {}
        self._dialling: dict[Key, asyncio.Future[Exception | None]] = {}

    def __repr__(self) -> str:
        return f"Native({', '.join(map(repr, self._links.values()))})"

    @property
    def buffer(self) -> memoryview:
        """What the connections of the running loop read into: they take it in one go.

        It stays the same, as one that stands in for a connection hands over what it has read.
        """
        loop = asyncio.get_running_loop()
        buffer = self._buffers.get(loop)
        if buffer is None:
            buffer = self._buffers[loop] = memoryview(bytearray(BUFFER))
        return buffer

    def dial_context(self) -> LiveContext | None:
        """Return what TLS needs to dial, None for plain connections."""
        if self._tls is not None and self._secure is None:
            self._secure = LiveContext(self._tls, self._tls.client_context)
        return self._secure

    def listen_context(self) -> LiveContext | None:
        """Return what TLS needs to accept, None for plain connections."""
        return LiveContext(self._tls, self._tls.server_context) if self._tls else None

    def connection(self, sockets: AcceptedSockets | None = None) -> NativeConnection:
        """Return the protocol of a connection that is dialled, or that was accepted."""
        return NativeConnection(
            self.buffer,
            self._limits,
            accept=sockets.add if sockets is not None else None,
            keep_alive=self._keep_alive,
            timeout=self._dial_timeout,
        )

    async def dial(self, address: str) -> NativeSession:
        """Return a session. Raises NotNative, Unavailable or BadRequest."""
        key = (address, asyncio.get_running_loop())
        while True:
            link = self._links.get(key)
            if link is not None and link.usable:
                return link.session()
            dialling = self._dialling.get(key)
            if dialling is None:
                return await self._connect(key)
            failed = await asyncio.shield(dialling)
            if isinstance(failed, Error):
                raise type(failed)(failed.detail, id=failed.id)
            if failed is not None:
                raise NotNative(str(failed))

    async def _connect(self, key: Key) -> NativeSession:
        """Make the connection, while others wait for it."""
        address, loop = key
        done = self._dialling[key] = loop.create_future()
        failed: Exception | None = None
        try:
            link = await dial(address, self.connection, self.dial_context(), self._dial_timeout)
            await self._greeted(link, address)
            self._links[key] = link
            link.on_lost(lambda: self._lost(key, link))
            return link.session()
        except (Error, NotNative) as error:
            failed = error
            raise
        finally:
            del self._dialling[key]
            done.set_result(failed)

    async def _greeted(self, link: NativeConnection, address: str) -> None:
        try:
            async with asyncio.timeout(self._dial_timeout):
                await link.greeted
        except BaseException as error:
            link.abort()
            if isinstance(error, TimeoutError):
                why = f"{address} did not answer within {self._dial_timeout:g} s"
                raise Unavailable(why, id=ID) from None
            raise

    def _lost(self, key: Key, link: NativeConnection) -> None:
        if self._links.get(key) is link:
            del self._links[key]
