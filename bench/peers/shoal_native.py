"""shoal_native: Shoal's service and stub as two Shoal peers that found each other: its protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import shoal
from bench import load
from bench.peers.shoal_http import Greeter, serve
from shoal.registry import Node, Record
from shoal.registry.memory import MemoryRegistry


async def found(service: str, port: int) -> MemoryRegistry:
    """Returns a registry that knows what the node of a service says of itself."""
    registry = MemoryRegistry()
    metadata = {"protocol": "mucp", "shoal-native": "1"}
    node = Node(f"{service}-1", f"127.0.0.1:{port}", metadata)
    await registry.register(Record(service, nodes=(node,)))
    return registry


@asynccontextmanager
async def connect(port: int, concurrency: int) -> AsyncIterator[load.Call]:
    """One client; it has read what the service's node says of itself."""
    async with shoal.connect(registry=await found("greeter", port)) as client:
        greeter = shoal.stub(Greeter, "greeter", client)

        async def call(name: str) -> str:
            return (await greeter.hello(load.HelloRequest(name))).greeting

        yield call


if __name__ == "__main__":
    load.main(serve, connect)
