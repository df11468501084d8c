"""faststream_peers: the same with FastStream: `KIND ADDRESS SECONDS`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from faststream import nats, rabbit, redis  # pyright: ignore[reportMissingImports]  # a peer
from pydantic import BaseModel

from bench.brokers import load

PREFETCH = 64


class Event(BaseModel):
    """What is published."""

    number: int
    text: str


@asynccontextmanager
async def connect(address: str, take: load.Take) -> AsyncIterator[load.Publish]:
    """Events are of pydantic, as its documentation has them; its logs are off."""
    broker, where, to = _made(sys.argv[1], address)

    @broker.subscriber(*where[0], **where[1])  # type: ignore[untyped-decorator]  # FastStream's
    async def handle(event: Event) -> None:
        take(event.number - 1_000_000_000)

    async def publish(number: int) -> None:
        await broker.publish(Event(number=1_000_000_000 + number, text=load.TEXT), **to)

    async with broker:
        await broker.start()
        yield publish


def _made(kind: str, address: str) -> tuple[Any, tuple[tuple[Any, ...], dict[str, Any]], Any]:
    """Returns a broker, where to subscribe and where to publish."""
    topic, group = load.TOPIC, load.GROUP
    log: dict[str, Any] = {"logger": None}
    match kind:
        case "nats":
            return (
                nats.NatsBroker(f"nats://{address}", **log),
                ((topic, group), {}),
                {"subject": topic},
            )
        case "jetstream":
            stream = nats.JStream(name=topic, subjects=[topic])
            broker = nats.NatsBroker(f"nats://{address}", **log)
            how = {"stream": stream, "durable": group, "queue": group}
            return broker, ((topic,), how), {"subject": topic, "stream": topic}
        case "rabbitmq":
            exchange = rabbit.RabbitExchange("bench-exchange", type=rabbit.ExchangeType.TOPIC)
            queue = rabbit.RabbitQueue(group, auto_delete=True, routing_key=topic)
            made = rabbit.RabbitBroker(
                f"amqp://guest:guest@{address}/",
                default_channel=rabbit.Channel(prefetch_count=PREFETCH),
                **log,
            )
            return made, ((queue, exchange), {}), {"exchange": exchange, "routing_key": topic}
        case "redis":
            return (
                redis.RedisBroker(f"redis://{address}", **log),
                ((topic,), {}),
                {"channel": topic},
            )
        case _:
            sub = redis.StreamSub(topic, group=group, consumer="one", max_records=PREFETCH)
            return (
                redis.RedisBroker(f"redis://{address}", **log),
                ((), {"stream": sub}),
                {
                    "stream": topic,
                    "maxlen": 100_000,
                },
            )


if __name__ == "__main__":
    load.main(connect)
