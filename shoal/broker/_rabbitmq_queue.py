"""Module _rabbitmq_queue subscribes to a topic over RabbitMQ and settles what was delivered."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from typing import TYPE_CHECKING, Any

from aiormq.abc import AbstractChannel

from shoal._rabbitmq import Consumer, Delivery, Properties, read
from shoal.broker import Deliver
from shoal.broker._local import Line, LocalSubscription
from shoal.broker._retry import dead_letter
from shoal.errors import Error, TooLarge
from shoal.message import Message

if TYPE_CHECKING:
    from shoal.broker.rabbitmq import RabbitBroker

logger = logging.getLogger(__name__)

# What an event that comes again carries beside its header: AMQP's headers have types, these are
# an int and a text. After its pause it comes back under the queue's name, not its topic's.
FAILED, TOPIC = "x-shoal-failed", "x-shoal-topic"
CRASHED = "x-delivery-count"  # how often a quorum queue has delivered it in vain

SPARE = 60.0  # seconds a queue of events that pause stays after the last of them
HOLD = 1.0  # seconds before an event goes back for which nothing could be published


def _pausing(queue: str, milliseconds: int) -> str:
    """Return what the queue is called in which events of another one pause."""
    if len(queue) > 200:
        queue = hashlib.sha256(queue.encode()).hexdigest()
    return f"retry.{milliseconds}.{queue}"


class Event(Message, kw_only=True):
    """An event as it was delivered, with how often its handling has failed."""

    raw: Delivery
    topic: str
    failed: int

    @classmethod
    def of(cls, raw: Delivery) -> Event:
        """Return the event in a delivery."""
        table: dict[str, Any] = dict(raw.header.properties.headers or {})
        topic = table.get(TOPIC)
        if not isinstance(topic, str):
            topic = raw.routing_key or ""
        counts = (table.get(FAILED), table.get(CRASHED))
        header = read(table)
        if not header.get("Micro-Topic"):  # Go Micro's subscribers find their handler by it
            header["Micro-Topic"] = topic
        failed = sum(count for count in counts if isinstance(count, int))
        return cls(header, raw.body, raw=raw, topic=topic, failed=failed)


class RabbitSubscription(LocalSubscription):
    """One consumer of one queue."""

    def __init__(self, line: Line, deliver: Deliver, broker: RabbitBroker) -> None:
        super().__init__(line, deliver)
        self._broker = broker
        self.consumer = Consumer(
            broker.link, self._declare, self._take, prefetch=broker.link.settings.prefetch
        )

    @property
    def line(self) -> Line:
        """Where its events wait."""
        return self._line

    async def unsubscribe(self) -> None:
        if self.end():
            try:
                await self.consumer.stop()
                await self.finish()
            finally:
                await self._broker.leave(self)

    async def _declare(self, channel: AbstractChannel) -> str:
        """Declare what Go Micro declares: a queue that goes with its last consumer."""
        settings = self._broker.link.settings
        durable = self._broker.durable and bool(self.queue)
        await channel.exchange_declare(
            settings.exchange,
            exchange_type=settings.exchange_type,
            durable=bool(settings.durable_exchange),
        )
        declared = await channel.queue_declare(
            self.queue,
            durable=durable,
            auto_delete=not durable,
            exclusive=not self.queue,
            arguments=dict(settings.arguments) if self.queue else None,
        )
        name = declared.queue or self.queue
        await channel.queue_bind(name, settings.exchange, routing_key=self.topic)
        return name

    def _take(self, raw: Delivery) -> None:
        event = Event.of(raw)
        # A queue has one name for all topics, in Go Micro too, and so gets the events of each.
        line = self._broker.line(self.queue, event.topic) if event.topic != self.topic else None
        if not (line or self._line).offer(event):
            logger.debug("an event of %r goes back: %r", event.topic, self)

    async def _run(self, message: Message) -> None:
        assert isinstance(message, Event)
        if message.raw.channel.is_closed:
            return  # it went back to its queue
        try:
            self._check(message)
            await self._deliver(message)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            logger.warning("a delivery of %r was cancelled from inside", self.topic)
            await self._settle(message, error)
        except Exception as error:
            logger.exception("a subscriber of %r failed", self.topic)
            await self._settle(message, error)
        else:
            await self._answer(message, None)

    def _check(self, event: Event) -> None:
        if len(event.body) > self._broker.max_message:
            raise TooLarge(
                f"the event is {len(event.body)} bytes, the limit is {self._broker.max_message}"
            )
        if event.topic != self.topic:
            raise LookupError(f"{event.topic!r} is not subscribed to here, {self.topic!r} is")

    async def _settle(self, event: Event, reason: BaseException) -> None:
        """Let an event come again, or be a dead letter; it stays in its queue until that is."""
        retry, failed = self._broker.retry, event.failed + 1
        try:
            if failed < retry.attempts:
                await self._again(event, failed)
            elif topic := retry.topic(event.topic):
                letter = dead_letter(
                    Message(read(event.raw.header.properties.headers), event.raw.body),
                    topic=event.topic,
                    queue=self.queue,
                    attempts=failed,
                    reason=reason,
                )
                letter.header["Micro-Topic"] = topic
                await self._broker.bury(topic, letter)
            else:
                await self._answer(event, requeue=False)  # a policy of the server may keep it
                return
        except Error as error:
            logger.warning("an event of %r goes back to its queue: %s", event.topic, error)
            await asyncio.sleep(HOLD)
            await self._answer(event, requeue=True)
            return
        await self._answer(event, None)

    async def _again(self, event: Event, failed: int) -> None:
        """Put an event into a queue from which it comes back after its pause."""
        retry, durable = self._broker.retry, self._broker.durable and bool(self.queue)
        pause = min(retry.backoff * 2.0 ** min(failed - 1, 32), retry.longest)
        milliseconds, key = int(pause * 1000), self.consumer.queue
        if milliseconds:
            # Each pause has a queue, since RabbitMQ looks at the first of a queue only.
            key = _pausing(self.consumer.queue, milliseconds)
            await self._broker.declare(
                key,
                durable=durable,
                arguments={
                    "x-dead-letter-exchange": "",
                    "x-dead-letter-routing-key": self.consumer.queue,
                    "x-message-ttl": milliseconds,
                    "x-expires": milliseconds + int(SPARE * 1000),
                },
            )
        table: dict[str, Any] = dict(event.raw.header.properties.headers or {})
        table.pop("x-death", None)
        table |= {FAILED: failed, TOPIC: event.topic}
        mode = 2 if durable else 1
        properties = Properties(headers=table, delivery_mode=mode)
        await self._broker.link.publish(key, event.raw.body, properties, exchange="")

    async def _answer(self, event: Event, requeue: bool | None) -> None:
        """Acknowledge an event, or give it back; without its channel it has gone back already."""
        channel, tag = event.raw.channel, event.raw.delivery_tag
        assert tag is not None
        try:
            if requeue is None:
                await channel.basic_ack(tag, wait=False)
            else:
                await channel.basic_nack(tag, requeue=requeue, wait=False)
        except Exception as error:
            logger.debug("an event of %r comes again: %s", event.topic, error)
