"""redis_py: Redis by redis-py alone: `channel|stream ADDRESS SECONDS`."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis

from bench.brokers import load

CONNECTIONS = 16
PREFETCH = 64
BLOCK = 200  # ms


@asynccontextmanager
async def connect(address: str, take: load.Take) -> AsyncIterator[load.Publish]:
    """Publishes over a pool of connections, and reads in a task."""
    pool = BlockingConnectionPool.from_url(f"redis://{address}", max_connections=CONNECTIONS)
    redis: Any = Redis(connection_pool=pool)
    reader: Any = Redis.from_url(f"redis://{address}")

    async def listen(ready: asyncio.Event) -> None:
        async with reader.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(load.TOPIC)
            ready.set()
            async for message in channel.listen():
                take(load.number(message["data"]))

    async def read(ready: asyncio.Event) -> None:
        await reader.xgroup_create(load.TOPIC, load.GROUP, "$", mkstream=True)
        ready.set()
        streams = {load.TOPIC: ">"}
        while not ended:
            for _, entries in await reader.xreadgroup(
                load.GROUP, "one", streams, count=PREFETCH, block=BLOCK
            ):
                for _, fields in entries:
                    take(load.number(fields[b"body"]))
                await reader.xack(load.TOPIC, load.GROUP, *[id for id, _ in entries])

    async def publish(number: int) -> None:
        await redis.publish(load.TOPIC, load.body(number))

    async def add(number: int) -> None:
        await redis.xadd(load.TOPIC, {"body": load.body(number)}, maxlen=100_000)

    ended: list[bool] = []  # redis-py may lose the cancellation of what reads
    is_stream = sys.argv[1] == "stream"
    ready = asyncio.Event()
    task = asyncio.create_task((read if is_stream else listen)(ready))
    await ready.wait()
    try:
        yield add if is_stream else publish
    finally:
        ended.append(True)
        if not is_stream:
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await reader.aclose()
        await redis.aclose()


if __name__ == "__main__":
    load.main(connect)
