"""What the tests of both brokers on Redis share."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

from redis.asyncio import Redis

from shoal.broker import Broker
from shoal.broker._redis_settings import RedisSettings
from shoal.errors import Error
from shoal.message import Message
from tests.servers.redis import RedisServer

QUICK = RedisSettings(timeout=1.0, patience=10.0, ping=0.3)
"""A server that hangs is noticed in seconds."""


@contextlib.asynccontextmanager
async def admin(server: RedisServer, **settings: str) -> AsyncIterator[Redis]:
    """Talk to a server as an operator would."""
    client = Redis(host="127.0.0.1", port=server.port, **settings)  # type: ignore[arg-type]  # a mix
    try:
        yield client
    finally:
        await client.aclose()


async def becomes(look: Callable[[], object], deadline: float = 30.0) -> None:
    """Wait until something holds that nobody announces."""
    async with asyncio.timeout(deadline):
        while not look():  # noqa: ASYNC110  # any state
            await asyncio.sleep(0.02)


async def run(redis: Redis, *words: str) -> Any:
    """Run a command and return its answer."""
    return await redis.execute_command(*words)  # type: ignore[no-untyped-call]  # redis's own


async def nothing_pending(redis: Redis, key: str, group: str) -> None:
    """Wait until everything that was given to a group is acknowledged."""
    await held(redis, key, group, 0)


async def held(redis: Redis, key: str, group: str, count: int) -> None:
    """Wait until a group's consumers have so many entries that are not acknowledged."""
    async with asyncio.timeout(30):
        while (await redis.xpending(key, group))["pending"] != count:  # noqa: ASYNC110  # in Redis
            await asyncio.sleep(0.05)


class Tally:
    """A handler that counts what it gets; `work` is done for each event before that."""

    def __init__(self, pause: float = 0.0) -> None:
        self.pause = pause
        self.got: Counter[bytes] = Counter()
        self.messages: list[Message] = []

    async def deliver(self, message: Message) -> None:
        await asyncio.sleep(self.pause)
        self.got[message.body] += 1
        self.messages.append(message)

    async def has(self, bodies: set[bytes], deadline: float = 60.0) -> None:
        await becomes(lambda: bodies <= self.got.keys(), deadline)


async def published(broker: Broker, topic: str, numbers: range) -> set[bytes]:
    """Publish an event for each number, and return those that were taken."""
    taken = set()
    for number in numbers:
        body = b"%d" % number
        with contextlib.suppress(Error):
            await broker.publish(topic, Message({"Content-Type": "text/plain"}, body))
            taken.add(body)
    return taken
