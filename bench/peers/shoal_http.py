"""shoal_http: Shoal's service and stub over the http transport, as the README writes them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import shoal
from bench import load


class Greeter:
    """The service."""

    async def hello(self, request: load.HelloRequest) -> load.HelloReply:
        """Says hello."""
        return load.HelloReply(f"Hello {request.name}")


@asynccontextmanager
async def serve() -> AsyncIterator[int]:
    """Serves until left."""
    service = shoal.Service("greeter", registry="memory", address="127.0.0.1:0")
    service.handle(Greeter())
    async with service:
        yield int(service.server.address.rpartition(":")[2])


@asynccontextmanager
async def connect(port: int, concurrency: int) -> AsyncIterator[load.Call]:
    """One client; it keeps the connections it needs."""
    async with shoal.connect(registry=f"static://greeter=127.0.0.1:{port}") as client:
        greeter = shoal.stub(Greeter, "greeter", client)

        async def call(name: str) -> str:
            return (await greeter.hello(load.HelloRequest(name))).greeting

        yield call


if __name__ == "__main__":
    load.main(serve, connect)
