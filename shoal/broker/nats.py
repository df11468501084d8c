"""Module nats is the broker over NATS: a topic is a subject, a queue a queue group."""

from __future__ import annotations

import asyncio
import logging
from typing import ClassVar

from shoal._nats import Interest, Link, Msg, NatsSettings, check_subject
from shoal.broker import Broker, Deliver, Subscription
from shoal.broker._envelope import decode, encode, received, sendable
from shoal.broker._guarantees import Guarantees
from shoal.broker._local import Limits, Line, LocalSubscription, check_topic
from shoal.errors import BadRequest, TooLarge
from shoal.message import Message
from shoal.tls import Tls

__all__ = ["NatsBroker", "NatsSettings"]

logger = logging.getLogger(__name__)

ID = "shoal.broker"
TOLD = 1000  # drops between two lines in the log


class NatsBroker(Broker):
    """Moves events in Go Micro's JSON, over the subject a topic is called (broker/nats).

    At most once, in order: publishing returns when the server has taken the event, and who is not
    connected then misses it. While the connection is broken, publishing waits for it to come back
    and then raises Unavailable. Each subscription runs `concurrency` deliveries at a time, and
    `unread` events may wait for it: those that come then are dropped, counted and logged, since
    NATS cannot make publishers wait.
    """

    guarantees: ClassVar[Guarantees] = Guarantees(groups=True, ordered=True)

    def __init__(
        self,
        address: str = "",
        *,
        tls: Tls | None = None,
        max_message: int = 4 * 1024 * 1024,
        unread: int = 65536,
        concurrency: int = 1,
        grace: float = 30.0,
        settings: NatsSettings | None = None,
    ) -> None:
        """Reach NATS at `address`, several separated by commas, `user:password@host:port` each.

        `max_message` bounds an event's body in bytes, as the server's own limit does; `grace` is
        seconds for deliveries that run when they are unsubscribed.
        """
        self.address = ""
        self.dropped = 0
        """Events that found no room for them, or were none."""
        self._max_message = max_message
        self._link = Link(address, settings, tls, ID)
        self._limits = Limits(unread=unread, concurrency=concurrency, grace=grace)
        self._subscriptions: set[_NatsSubscription] = set()

    def __repr__(self) -> str:
        topics = sorted(f"{one.topic}/{one.queue}" for one in self._subscriptions)
        return f"NatsBroker({self._link!r}, {topics}, dropped={self.dropped})"

    @property
    def error(self) -> Exception | None:
        """Why NATS cannot be reached now, None if it can."""
        return self._link.error

    async def connect(self) -> None:
        await self._link.open()
        self.address = self._link.where or self.address

    async def disconnect(self) -> None:
        await asyncio.gather(*(one.unsubscribe() for one in list(self._subscriptions)))
        await self._link.close()
        self.address = ""

    async def publish(self, topic: str, message: Message) -> None:
        check_topic(topic)
        check_subject(topic, "topic", ID)
        if len(message.body) > self._max_message:
            raise TooLarge(
                f"the event is {len(message.body)} bytes, the limit is {self._max_message}", id=ID
            )
        # Go Micro's subscribers look for the topic in the header.
        header = {"Micro-Topic": topic, **sendable(message.headers())}
        payload = encode(header, message.body)
        await self.connect()
        await self._link.publish(topic, payload)

    async def subscribe(self, topic: str, deliver: Deliver, *, queue: str = "") -> Subscription:
        check_topic(topic, queue)
        check_subject(topic, "topic", ID)
        if queue:
            check_subject(queue, "queue", ID)
        await self.connect()
        # Each has a subscription of its own, so that NATS shares a queue among all members.
        line = Line(topic, queue, self._limits, lambda line: None)
        subscription = _NatsSubscription(line, deliver, self)
        self._subscriptions.add(subscription)
        try:
            subscription.interest = await self._link.subscribe(
                topic, lambda message: self._take(line, message), queue=queue
            )
        except BaseException:
            await subscription.unsubscribe()
            raise
        return subscription

    async def leave(self, subscription: _NatsSubscription) -> None:
        """Let the server send no more events of a subscription."""
        self._subscriptions.discard(subscription)
        if subscription.interest is not None:
            await self._link.unsubscribe(subscription.interest)

    def _take(self, line: Line, message: Msg) -> None:
        try:
            event = decode(message.data)
            if len(event.body) > self._max_message:
                raise TooLarge(f"it is {len(event.body)} bytes, the limit is {self._max_message}")
        except (BadRequest, TooLarge) as error:
            self._drop(line.topic, str(error))
            return
        event.header = received(event.header)
        if not line.offer(event) and line.members:
            self._drop(line.topic, f"{line.limits.unread} wait for a subscriber already")

    def _drop(self, topic: str, why: str) -> None:
        if self.dropped % TOLD == 0:
            logger.warning(
                "an event of %r was dropped, %d were before: %.200s", topic, self.dropped, why
            )
        self.dropped += 1


class _NatsSubscription(LocalSubscription):
    interest: Interest | None = None

    def __init__(self, line: Line, deliver: Deliver, broker: NatsBroker) -> None:
        super().__init__(line, deliver)
        self._broker = broker

    async def unsubscribe(self) -> None:
        if self.end():
            try:
                await self._broker.leave(self)
            finally:
                await self.finish()
