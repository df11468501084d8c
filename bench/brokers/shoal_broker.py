"""shoal_broker: Shoal's brokers as they are, bytes in and bytes out: `NAME ADDRESS SECONDS`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bench.brokers import load
from shoal import plugins
from shoal.broker import Broker
from shoal.message import Message
from shoal.registry.memory import MemoryRegistry

JSON = {"Content-Type": "application/json"}


@asynccontextmanager
async def connect(address: str, take: load.Take) -> AsyncIterator[load.Publish]:
    """Subscribes in the group where the broker has groups."""
    make: Any = plugins.load("broker", sys.argv[1])
    broker: Broker = make(MemoryRegistry()) if sys.argv[1] == "http" else make(address)

    async def deliver(message: Message) -> None:
        take(load.number(message.body))

    async def publish(number: int) -> None:
        await broker.publish(load.TOPIC, Message(dict(JSON), load.body(number)))

    queue = load.GROUP if broker.guarantees.groups else ""
    await broker.subscribe(load.TOPIC, deliver, queue=queue)
    try:
        yield publish
    finally:
        await broker.disconnect()


if __name__ == "__main__":
    load.main(connect)
