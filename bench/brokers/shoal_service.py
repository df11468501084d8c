"""shoal_service: a Shoal service that publishes and subscribes: `NAME ADDRESS SECONDS`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import shoal
from bench.brokers import load


@asynccontextmanager
async def connect(address: str, take: load.Take) -> AsyncIterator[load.Publish]:
    """Subscribes in the group where the broker has groups."""
    name = sys.argv[1]
    service = shoal.Service(
        "bench",
        registry="memory",
        address="127.0.0.1:0",
        broker=f"{name}://{address}" if address else name,
    )

    async def handle(event: load.Event) -> None:
        take(event.number - 1_000_000_000)

    async def publish(number: int) -> None:
        await service.client.publish(load.TOPIC, load.event(number))

    service.subscribe(load.TOPIC, handle, queue="" if name == "redis" else load.GROUP)
    async with service:
        yield publish


if __name__ == "__main__":
    load.main(connect)
