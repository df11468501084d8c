"""shoal_http: Shoal's streams over the http transport: JSON for small items, bytes for large."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from itertools import count

import shoal
from bench.streams import load
from shoal.client import Client

LARGE = shoal.Request("streamer", "Streamer.Large", None, bytes, "application/octet-stream")


class Streamer:
    """The service."""

    async def down(self) -> AsyncGenerator[load.Item, None]:
        """Sends small items."""
        for number in count():
            yield load.Item(number, load.TEXT)

    async def up(self, items: AsyncIterator[load.Item]) -> int:
        """Counts items."""
        came = 0
        async for _ in items:
            came += 1
        return came

    async def both(self, items: AsyncIterator[load.Item]) -> AsyncGenerator[load.Item, None]:
        """Sends items back."""
        async for item in items:
            yield item

    async def large(self) -> AsyncGenerator[bytes, None]:
        """Sends large items."""
        while True:
            yield load.BLOCK


@asynccontextmanager
async def serve() -> AsyncIterator[int]:
    """Serves until left."""
    service = shoal.Service("streamer", registry="memory", address="127.0.0.1:0")
    service.handle(Streamer())
    async with service:
        yield int(service.server.address.rpartition(":")[2])


class Streams:
    """The streams of one client, through a stub, but for bytes, which JSON would make larger."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._streamer = shoal.stub(Streamer, "streamer", client)

    def down(self) -> AbstractAsyncContextManager[load.Items]:
        """Opens a stream of small items."""
        return aclosing(self._streamer.down())

    async def up(self, items: load.Items) -> int:
        """Sends small items."""
        return await self._streamer.up(items)

    def both(self, items: load.Items) -> AbstractAsyncContextManager[load.Items]:
        """Sends small items and gets them back."""
        return aclosing(self._streamer.both(items))

    @asynccontextmanager
    async def large(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """Opens a stream of large items."""
        async with self._client.stream(LARGE) as stream:
            yield aiter(stream)


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[load.Streams]:
    """One client."""
    async with shoal.connect(registry=f"static://streamer=127.0.0.1:{port}") as client:
        yield Streams(client)


if __name__ == "__main__":
    load.main(serve, load.client(connect))
