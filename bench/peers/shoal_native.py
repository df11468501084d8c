"""shoal_native: Shoal's service and stub over its own protocol, as two Shoal peers find it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import shoal
from bench import load
from bench.peers.shoal_http import Greeter


@asynccontextmanager
async def serve() -> AsyncIterator[int]:
    """Serves until left."""
    service = shoal.Service("greeter", registry="memory", transport="tcp", address="127.0.0.1:0")
    service.handle(Greeter())
    async with service:
        yield int(service.server.address.rpartition(":")[2])


@asynccontextmanager
async def connect(port: int, concurrency: int) -> AsyncIterator[load.Call]:
    """One client, with one connection."""
    registry = f"static://greeter=127.0.0.1:{port}"
    async with shoal.connect(registry=registry, transport="tcp") as client:
        greeter = shoal.stub(Greeter, "greeter", client)

        async def call() -> str:
            return (await greeter.hello(load.HelloRequest(load.NAME))).greeting

        yield call


if __name__ == "__main__":
    load.main(serve, connect)
