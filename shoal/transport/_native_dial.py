"""Module _native_dial finds the shared connection to an address, or makes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from shoal.errors import Error, Unavailable
from shoal.tls import LiveContext
from shoal.transport._native_connection import NativeConnection, NotNative
from shoal.transport._native_session import NativeSession
from shoal.transport._tcp import ID, dial

Key = tuple[str, asyncio.AbstractEventLoop]


class NativeDialler:
    """The connections of one transport: one for each address and event loop."""

    def __init__(
        self,
        make: Callable[[], NativeConnection],
        secure: Callable[[], LiveContext | None],
        timeout: float,
    ) -> None:
        """Bound the time in seconds until a new connection can be used."""
        self._make = make
        self._secure = secure
        self._timeout = timeout
        self._links: dict[Key, NativeConnection] = {}
        self._dialling: dict[Key, asyncio.Future[Exception | None]] = {}

    def __repr__(self) -> str:
        return f"NativeDialler({list(self._links.values())})"

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
            link = await dial(address, self._make, self._secure(), self._timeout)
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
            async with asyncio.timeout(self._timeout):
                await link.greeted
        except BaseException as error:
            link.abort()
            if isinstance(error, TimeoutError):
                why = f"{address} did not answer within {self._timeout:g} s"
                raise Unavailable(why, id=ID) from None
            raise

    def _lost(self, key: Key, link: NativeConnection) -> None:
        if self._links.get(key) is link:
            del self._links[key]
