"""Module _publish hands events to the broker."""

from __future__ import annotations

import random
import uuid

from shoal import context, wire
from shoal.broker import Broker
from shoal.deadlines import Deadlines
from shoal.errors import Timeout
from shoal.message import Message
from shoal.middleware import Call


async def publish(
    broker: Broker, codecs: wire.Codecs, call: Call, timeout: float, deadlines: Deadlines
) -> None:
    """Publish an event within seconds, or until the deadline of the running call."""
    content_type = codecs.content_type(call.message)
    header = {
        **context.published(context.current.get()),
        **context.checked(call.header),
        "Content-Type": content_type,
        "Micro-Topic": call.endpoint,
        # As unique as uuid4's, which asks the system for each.
        "Micro-Id": str(uuid.UUID(int=random.getrandbits(128), version=4)),
    }
    body = codecs[content_type].encode(call.message)
    left = context.remaining()
    limit = timeout if left is None else min(left, timeout)
    loop = deadlines.loop
    started = loop.time()
    try:
        with deadlines.until(started + limit):
            await broker.publish(call.endpoint, Message(header, body))
    except TimeoutError:
        raise Timeout(
            f"publishing to {call.endpoint} was not over by its deadline of {limit:.3g} s,"
            f" after {loop.time() - started:.3f} s",
            id=wire.CLIENT,
        ) from None
