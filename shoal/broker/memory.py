"""Module memory is a broker inside one process, for its own services and for tests."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from shoal.broker import Broker, Deliver, Guarantees, Subscription
from shoal.broker._local import Limits, LocalSubscription, Subscribers, check_topic, put
from shoal.message import Message


class MemoryBroker(Broker):
    """Moves events between all services of one event loop that are given the same object.

    At most once, in order. Publishing does not wait for handlers, except for room: `unread`
    events may wait for a subscription, then its publishers wait, up to `timeout` seconds. Each
    subscription runs `concurrency` deliveries at a time; one by one they keep the order.
    """

    guarantees: ClassVar[Guarantees] = Guarantees(groups=True, ordered=True, in_flight=True)

    def __init__(
        self,
        address: str = "",
        *,
        unread: int = 1024,
        concurrency: int = 1,
        timeout: float = 30.0,
        grace: float = 30.0,
    ) -> None:
        """Ignore the address: there is nothing to reach. `grace` is seconds for deliveries that
        run when they are unsubscribed."""
        self.address = ""
        self._subscribers = Subscribers(
            Limits(unread=unread, concurrency=concurrency, timeout=timeout, grace=grace)
        )

    def __repr__(self) -> str:
        return f"MemoryBroker({self._subscribers!r})"

    async def connect(self) -> None:
        self.address = "memory"

    async def disconnect(self) -> None:
        """End all subscriptions, of every service that was given this object."""
        self.address = ""
        await asyncio.gather(*(one.unsubscribe() for one in self._subscribers.subscriptions()))

    async def publish(self, topic: str, message: Message) -> None:
        check_topic(topic)
        self.address = "memory"
        await put(self._subscribers.lines(topic), message)

    async def subscribe(self, topic: str, deliver: Deliver, *, queue: str = "") -> Subscription:
        check_topic(topic, queue)
        self.address = "memory"
        return LocalSubscription(self._subscribers.line(topic, queue), deliver)
