"""Module rabbitmq is the broker over RabbitMQ: a topic is a routing key, a queue is a queue."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from shoal._rabbitmq import Link, Properties, RabbitSettings, check_name, table
from shoal.broker import Broker, Deliver, Subscription
from shoal.broker._envelope import sendable
from shoal.broker._guarantees import Guarantees
from shoal.broker._local import Limits, Line, check_topic
from shoal.broker._rabbitmq_queue import RabbitSubscription
from shoal.broker._retry import Retry
from shoal.errors import BadRequest, TooLarge, Unavailable
from shoal.message import Message
from shoal.tls import Tls

__all__ = ["RabbitBroker", "RabbitSettings", "Retry"]

ID = "shoal.broker"


class RabbitBroker(Broker):
    """Moves events as Go Micro does: raw bodies, headers in AMQP's table, the exchange `micro`.

    Publishing returns when the server has taken the event. It stays in its queue until the handler
    has returned; where that raised, `retry` says what then. A queue, and the events in it, live
    as long as a member of it does; with `durable` they outlive members and the server. A
    subscription without a queue has one of its own, which goes with its connection.
    """

    guarantees: ClassVar[Guarantees] = Guarantees(
        delivery="at least once",
        groups=True,
        ordered=True,
        attempts=True,
        delayed_retry=True,
        dead_letter=True,
        in_flight=True,
    )

    def __init__(
        self,
        address: str = "",
        *,
        tls: Tls | None = None,
        max_message: int = 4 * 1024 * 1024,
        concurrency: int = 1,
        durable: bool = False,
        retry: Retry | None = None,
        grace: float = 30.0,
        settings: RabbitSettings | None = None,
    ) -> None:
        """Reach RabbitMQ at `user:password@host:port/vhost`, several separated by commas.

        `max_message` bounds an event's body in bytes; `grace` is seconds for deliveries that run
        when they are unsubscribed. Raises BadRequest for an address that is none.
        """
        self.address = ""
        self.max_message = max_message
        self.durable = durable
        self.retry = retry or Retry()
        settings = settings or RabbitSettings()
        if settings.durable_exchange is None:
            settings = replace(settings, durable_exchange=durable)
        self.link = Link(address, settings, tls, ID)
        prefetch = self.link.settings.prefetch
        if concurrency > prefetch:
            raise ValueError(
                f"{concurrency} deliveries at a time need as much prefetch: {prefetch}"
            )
        # The prefetch bounds a line, but for what others of a queue may put in.
        self._limits = Limits(unread=1 << 16, concurrency=concurrency, grace=grace)
        self._subscriptions: set[RabbitSubscription] = set()

    def __repr__(self) -> str:
        topics = sorted(f"{one.topic}/{one.queue}" for one in self._subscriptions)
        return f"RabbitBroker({self.link!r}, {topics})"

    @property
    def error(self) -> Exception | None:
        """Why RabbitMQ cannot be reached now, or a queue not consumed; None if all is well."""
        errors = (one.consumer.error for one in self._subscriptions)
        return self.link.error or next((error for error in errors if error), None)

    async def connect(self) -> None:
        await self.link.open()
        self.address = self.link.where or self.address

    async def disconnect(self) -> None:
        await asyncio.gather(*(one.unsubscribe() for one in list(self._subscriptions)))
        await self.link.close()
        self.address = ""

    async def publish(self, topic: str, message: Message) -> None:
        self._check(topic)
        if len(message.body) > self.max_message:
            raise TooLarge(
                f"the event is {len(message.body)} bytes, the limit is {self.max_message}", id=ID
            )
        header = sendable(message.headers())
        header.setdefault("Micro-Topic", topic)
        await self.connect()
        await self.link.publish(topic, message.body, self._properties(header, self.durable))

    async def subscribe(self, topic: str, deliver: Deliver, *, queue: str = "") -> Subscription:
        self._check(topic)
        if queue:
            check_topic(queue)
            check_name(queue, "queue", ID)
        await self.connect()
        # Each has a consumer of its own, so that RabbitMQ shares a queue among all members.
        line = Line(topic, queue, self._limits, lambda _: None)
        subscription = RabbitSubscription(line, deliver, self)
        self._subscriptions.add(subscription)
        try:
            await subscription.consumer.start()
        except BaseException:
            await subscription.unsubscribe()
            raise
        return subscription

    # For the subscriptions

    def line(self, queue: str, topic: str) -> Line | None:
        """Return where the events of another topic of a queue wait, if here."""
        for one in self._subscriptions:
            if (one.queue, one.topic) == (queue, topic) and not one.ended:
                return one.line
        return None

    async def leave(self, subscription: RabbitSubscription) -> None:
        """Give up what a subscription that has ended holds."""
        self._subscriptions.discard(subscription)
        await subscription.consumer.close()

    async def declare(
        self, name: str, *, durable: bool, arguments: Mapping[str, Any] | None = None
    ) -> None:
        """Declare a queue that stays without consumers; raises Unavailable."""
        client = await self.link.client()
        channel = await client.manager()
        async with client.answering():
            await channel.queue_declare(
                name, durable=durable, arguments=dict(arguments) if arguments else None
            )

    async def bury(self, topic: str, message: Message) -> None:
        """Publish a dead letter, into a queue of the topic's name where it is kept."""
        self._check(topic)
        try:
            check_name(topic, "queue", ID)
            name = topic
        except BadRequest:  # a topic may have letters that a queue may not
            name = f"dead.{hashlib.sha256(topic.encode()).hexdigest()}"
        await self.declare(name, durable=True)
        client = await self.link.client()
        channel = await client.manager()
        async with client.answering():
            await channel.queue_bind(name, self.link.settings.exchange, routing_key=topic)
        properties = self._properties(message.headers(), persistent=True)
        if not await self.link.publish(topic, message.body, properties, mandatory=True):
            raise Unavailable(f"no queue takes the dead letters of {topic!r}", id=ID)

    def _check(self, topic: str) -> None:
        check_topic(topic)
        check_name(topic, "topic", ID, pattern=self.link.settings.exchange_type == "topic")

    def _properties(self, header: dict[str, str], persistent: bool) -> Properties:
        headers: dict[str, Any] = dict(table(header, ID))
        return Properties(headers=headers, delivery_mode=2 if persistent else 1)
