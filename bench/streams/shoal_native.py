"""shoal_native: Shoal's streams between two Shoal peers that found each other: its protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import shoal
from bench.peers.shoal_native import found
from bench.streams import load
from bench.streams.shoal_http import Streams, serve


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[load.Streams]:
    """One client; it has read what the service's node says of itself."""
    async with shoal.connect(registry=await found("streamer", port)) as client:
        yield Streams(client)


if __name__ == "__main__":
    load.main(serve, load.client(connect))
