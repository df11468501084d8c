"""Module jetstream is the broker over NATS JetStream: events are kept, and come until handled."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from typing import ClassVar

from shoal._nats import Link, NatsSettings, check_subject
from shoal.broker import Broker, Deliver, Subscription
from shoal.broker._guarantees import Guarantees
from shoal.broker._jetstream_api import ID, JetStreamApi, JetStreamSettings, Refused, read
from shoal.broker._jetstream_format import decode, encode
from shoal.broker._jetstream_subscription import JetStreamSubscription
from shoal.broker._local import Limits, check_topic
from shoal.broker._retry import Retry
from shoal.errors import TooLarge, Unavailable
from shoal.message import Message
from shoal.tls import Tls

__all__ = ["JetStreamBroker", "JetStreamSettings", "NatsSettings", "Retry"]

ATTEMPTS = 3  # of a publication that was not confirmed; the server knows it by its id


class JetStreamBroker(Broker):
    """Keeps each topic in a stream, and gives each queue a durable consumer of it.

    At least once: publishing returns when the server has stored the event, and an event is
    acknowledged when its handler returned. One that raises comes again after a pause; after
    `retry.attempts` deliveries, crashes included, the event goes to the dead letter topic with the
    reason in its header. Events of a queue wait while none of its members is there; a subscriber
    without a queue gets what is published while it is subscribed, through all reconnections.
    Events are in order until one has to come again. What is in flight, up to `prefetch` events of
    a queue, may come twice when a connection breaks or a process dies.
    """

    guarantees: ClassVar[Guarantees] = Guarantees(
        delivery="at least once",
        groups=True,
        ordered=True,
        attempts=True,
        delayed_retry=True,
        dead_letter=True,
        in_flight=True,
        durable=True,
    )

    def __init__(
        self,
        address: str = "",
        *,
        tls: Tls | None = None,
        max_message: int = 4 * 1024 * 1024,
        concurrency: int = 1,
        prefetch: int = 64,
        retry: Retry | None = None,
        streams: JetStreamSettings | None = None,
        settings: NatsSettings | None = None,
    ) -> None:
        """Reach NATS at `address`, several separated by commas, `user:password@host:port` each.

        `concurrency` deliveries of a subscription run at a time; `prefetch` bounds what a queue,
        or a subscriber without one, has in flight.
        """
        if prefetch < concurrency:
            raise ValueError(f"prefetch must be at least concurrency, {concurrency}")
        self.address = ""
        self.streams = streams or JetStreamSettings()
        self.retry = retry or Retry()
        self.prefetch = prefetch
        self.limits = Limits(unread=max(prefetch, 1) * 2, concurrency=concurrency)
        self.link = Link(address, settings, tls, ID)
        self.link.on_back.append(self._back)
        self.api = JetStreamApi(self.link, self.streams)
        self._max_message = max_message
        self._known: set[str] = set()  # topics that have a stream
        self._preparing = asyncio.Lock()
        self._session = ""  # with a number it is an event's id
        self._numbers = itertools.count(1)
        self._subscriptions: set[JetStreamSubscription] = set()

    def __repr__(self) -> str:
        topics = sorted(f"{one.topic}/{one.queue}" for one in self._subscriptions)
        return f"JetStreamBroker({self.link!r}, {topics})"

    @property
    def error(self) -> Exception | None:
        """Why events do not come or go now, None if they do."""
        ill = (one.error for one in self._subscriptions if one.error is not None)
        return self.link.error or next(ill, None)

    async def connect(self) -> None:
        if not self.address:
            await self.link.open()
            try:
                await self.api.check()
            except Unavailable:
                await self.link.close()
                raise
        self.address = self.link.where or self.address

    async def disconnect(self) -> None:
        await asyncio.gather(*(one.unsubscribe() for one in list(self._subscriptions)))
        await self.link.close()
        self._known.clear()
        self.address = self._session = ""

    async def publish(self, topic: str, message: Message) -> None:
        check_topic(topic)
        check_subject(topic, "topic", ID)
        if len(message.body) > self._max_message:
            raise TooLarge(
                f"the event is {len(message.body)} bytes, the limit is {self._max_message}", id=ID
            )
        payload = encode(topic, message, events=self.streams.events)
        # With its id the server stores an event once, however often it is sent.
        self._session = self._session or uuid.uuid4().hex
        headers = {"Nats-Msg-Id": f"{self._session}.{next(self._numbers)}"}
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._prepare(topic)
                read((await self.link.request(topic, payload, headers=headers)).data)
                return
            except Unavailable as error:
                self._known.discard(topic)  # the stream may have been deleted
                if attempt == ATTEMPTS or isinstance(error, Refused) or not self.address:
                    raise

    async def _prepare(self, topic: str) -> None:
        """Be connected and know that a topic is kept; those who wait for that stay in order."""
        if self.address and topic in self._known:
            return
        async with self._preparing:
            await self.connect()
            if topic not in self._known:
                await self.api.stream(topic)
                self._known.add(topic)

    async def subscribe(self, topic: str, deliver: Deliver, *, queue: str = "") -> Subscription:
        check_topic(topic, queue)
        check_subject(topic, "topic", ID)
        if queue:
            check_subject(queue, "queue", ID)
        await self.connect()
        subscription = JetStreamSubscription(self, topic, queue, deliver)
        self._subscriptions.add(subscription)
        try:
            await subscription.start()
        except BaseException:
            await subscription.unsubscribe()
            raise
        return subscription

    def decode(self, data: bytes) -> Message:
        """Return the event that a stream holds; raises BadRequest."""
        return decode(data, events=self.streams.events)

    def gone(self, subscription: JetStreamSubscription) -> None:
        """Forget a subscription that has ended."""
        self._subscriptions.discard(subscription)

    def _back(self) -> None:
        for subscription in self._subscriptions:
            subscription.look()
