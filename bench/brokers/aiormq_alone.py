"""aiormq_alone: RabbitMQ by aiormq alone, confirmed and acknowledged: `- ADDRESS SECONDS`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiormq
from aiormq.abc import DeliveredMessage

from bench.brokers import load

PREFETCH = 64


@asynccontextmanager
async def connect(address: str, take: load.Take) -> AsyncIterator[load.Publish]:
    """Publishes on one channel, consumes on another."""
    connection = await aiormq.connect(f"amqp://guest:guest@{address}/")
    publisher = await connection.channel(publisher_confirms=True)
    consumer = await connection.channel()
    await publisher.exchange_declare("bench", exchange_type="topic")
    await consumer.basic_qos(prefetch_count=PREFETCH)
    await consumer.queue_declare(load.GROUP, auto_delete=True)
    await consumer.queue_bind(load.GROUP, "bench", routing_key=load.TOPIC)

    async def handle(message: DeliveredMessage) -> None:
        take(load.number(message.body))
        assert message.delivery_tag is not None
        await consumer.basic_ack(message.delivery_tag, wait=False)

    async def publish(number: int) -> None:
        await publisher.basic_publish(load.body(number), exchange="bench", routing_key=load.TOPIC)

    await consumer.basic_consume(load.GROUP, handle)
    try:
        yield publish
    finally:
        await connection.close()


if __name__ == "__main__":
    load.main(connect)
