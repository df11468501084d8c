"""nats_py: NATS by nats-py alone: `core|confirmed|jetstream ADDRESS SECONDS`."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
from nats.aio.msg import Msg

from bench.brokers import load


@asynccontextmanager
async def connect(address: str, take: load.Take) -> AsyncIterator[load.Publish]:
    """Publishes as the first word of the command line says."""
    client = await nats.connect(f"nats://{address}")
    stream = client.jetstream()

    async def handle(message: Msg) -> None:
        take(load.number(message.data))

    async def handle_and_ack(message: Msg) -> None:
        take(load.number(message.data))
        await message.ack()

    async def core(number: int) -> None:
        await client.publish(load.TOPIC, load.body(number))

    async def confirmed(number: int) -> None:
        await client.publish(load.TOPIC, load.body(number))
        await client.flush()

    async def stored(number: int) -> None:
        await stream.publish(load.TOPIC, load.body(number))

    how = sys.argv[1]
    if how == "jetstream":
        await stream.add_stream(name=load.TOPIC, subjects=[load.TOPIC])
        await stream.subscribe(
            load.TOPIC, load.GROUP, handle_and_ack, durable=load.GROUP, manual_ack=True
        )
    else:
        await client.subscribe(load.TOPIC, load.GROUP, handle)
        await client.flush()
    try:
        yield {"core": core, "confirmed": confirmed, "jetstream": stored}[how]
        if how == "jetstream":
            await stream.delete_stream(load.TOPIC)
    finally:
        await client.close()


if __name__ == "__main__":
    load.main(connect)
