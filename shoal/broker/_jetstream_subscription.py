"""Module _jetstream_subscription takes what a consumer pushes, and acknowledges what is done."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

from shoal._nats import Interest, Msg
from shoal.broker import Deliver
from shoal.broker._jetstream_api import ID, nak, plain
from shoal.broker._local import Line, LocalSubscription
from shoal.broker._retry import dead_letter
from shoal.errors import BadRequest, Error, Unavailable
from shoal.message import Message

if TYPE_CHECKING:
    from shoal.broker.jetstream import JetStreamBroker

logger = logging.getLogger(__name__)

CHECK = 10.0  # seconds between two looks whether the consumer is still there
ACK, TERM, PROGRESS = b"+ACK", b"+TERM", b"+WPI"
_ACK_TOKENS = 9  # $JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<number>.<time>.<pending>
_BEFORE_CONSUMER = 3
_DONE = 4096  # events handled of late that are known again


class Event(Message):
    """An event with where to acknowledge it, how often it came, and its place in the stream."""

    reply: str = ""
    attempt: int = 1
    sequence: int = 0
    stored: str = ""
    """When the server stored it, which tells events of a stream that was made anew apart."""


class JetStreamSubscription(LocalSubscription):
    """A durable consumer that all of a queue share, or one of its own without a queue."""

    def __init__(self, owner: JetStreamBroker, topic: str, queue: str, deliver: Deliver) -> None:
        super().__init__(Line(topic, queue, owner.limits, lambda line: None), self._handle)
        self.error: Exception | None = None
        """Why the consumer may not be there now, None if it is."""
        self.restored = 0
        """How often the consumer had gone and was made again."""
        self._owner = owner
        self._handler = deliver
        self._interest: Interest | None = None
        self._stream = self._created = self._consumer = ""
        self._held: dict[int, Event] = {}  # by place in the stream
        self._done: dict[tuple[int, str], None] = {}  # the oldest first
        self._last = 0
        self._wake = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    # The consumer

    async def start(self) -> None:
        """Find or make the consumer, and listen to it; raises Unavailable."""
        await self._make()
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    def look(self) -> None:
        """Look at once whether the consumer is still there."""
        self._wake.set()

    @property
    def _durable(self) -> str:
        """The name of the queue's consumer: Go Micro's, where the topic has a stream alone."""
        alone = self._stream == plain(self.topic)
        return plain(self.queue if alone else f"{self.queue}.{self.topic}")

    async def _make(self) -> None:
        api, queue = self._owner.api, self.queue
        self._stream = await api.stream(self.topic)
        created = await api.created(self._stream)
        known = await api.consumer(self._stream, self._durable) if queue else None
        subject = self._deliver_subject(known)
        if self._interest is None or self._interest.subject != subject:
            await self._listen(subject, str((known or {}).get("deliver_group") or queue))
        if known is None:
            config = api.consumer_config(self.topic, subject, self._owner.prefetch)
            if self._created:  # it had one, which was lost
                config |= self._start_again(created)
            if queue:
                config |= {"durable_name": self._durable, "deliver_group": queue}
            else:
                config["inactive_threshold"] = config["ack_wait"]
            self._consumer = await api.make_consumer(self._stream, config)
        else:
            self._consumer = self._durable
        self._created = created

    def _start_again(self, created: str) -> dict[str, Any]:
        """Return where a consumer begins that takes the place of a lost one: no event is missed."""
        if created != self._created:
            return {"deliver_policy": "all"}  # the stream is another one, with new events only
        first = min(self._held, default=self._last + 1)
        if not self._last:
            return {}
        return {"deliver_policy": "by_start_sequence", "opt_start_seq": first}

    def _deliver_subject(self, known: dict[str, Any] | None) -> str:
        """Return where the events are pushed to: for all members of a queue the same subject."""
        if known is None:
            if self.queue:
                prefix = self._owner.link.settings.inbox
                return f"{prefix}.jetstream.{self._stream}.{self._durable}"
            if self._interest is not None:
                return self._interest.subject
            return f"{self._owner.link.inbox}.push.{id(self)}"
        subject = known.get("deliver_subject")
        if not subject or not known.get("deliver_group"):
            raise Unavailable(
                f"the consumer {self._durable!r} of the stream {self._stream!r} is of another "
                "kind, made by others: choose another queue, or delete it",
                id=ID,
            )
        return str(subject)

    async def _listen(self, subject: str, group: str) -> None:
        old, self._interest = self._interest, None
        if old is not None:
            await self._owner.link.unsubscribe(old)
        self._interest = await self._owner.link.subscribe(
            subject, self._take, queue=group if self.queue else ""
        )

    async def _keep(self) -> None:
        """Make a consumer again that has gone, and let the server know what is still handled."""
        beat = min(self._owner.api.settings.ack_wait / 3, CHECK)
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(beat):
                    await self._wake.wait()
            self._wake.clear()
            for event in self._held.values():
                self._owner.link.publish_soon(event.reply, PROGRESS)
            try:
                if await self._owner.api.consumer(self._stream, self._consumer) is None:
                    await self._make()
                    self.restored += 1
                    logger.warning("the consumer of %r had gone and was made again", self.topic)
                self.error = None
            except Error as error:
                self.error = error
                logger.debug("the consumer of %r cannot be looked at: %s", self.topic, error)

    # Events

    def _take(self, message: Msg) -> None:
        tokens = message.reply.split(".")
        if len(tokens) < _ACK_TOKENS or tokens[1] != "ACK":
            return  # a word of the server's
        # With a domain and an account two come before, and a random one after.
        first = _BEFORE_CONSUMER + (2 if len(tokens) > _ACK_TOKENS else 0)
        attempt, sequence, stored = (
            int(tokens[first + 1]),
            int(tokens[first + 2]),
            tokens[first + 4],
        )
        if (sequence, stored) in self._done:  # a server that crashed has forgotten that
            self._owner.link.publish_soon(message.reply, ACK)
            return
        known = self._held.get(sequence)
        if known is not None:  # it took so long that it came again, and is handled already
            known.reply, known.attempt = message.reply, attempt
            return
        try:
            decoded = self._owner.decode(message.data)
        except BadRequest as error:
            logger.warning("an event of %r is none and was dropped: %s", self.topic, error)
            self._owner.link.publish_soon(message.reply, TERM)
            return
        event = Event(decoded.header, decoded.body, None, message.reply, attempt, sequence, stored)
        if self.ended or not self._line.offer(event):
            self._owner.link.publish_soon(message.reply, nak(0))
            return
        self._held[sequence] = event
        self._last = max(self._last, sequence)

    async def _handle(self, message: Message) -> None:
        """Run the handler for an event, and tell the server what came of it."""
        assert isinstance(message, Event)
        retry = self._owner.retry
        answer = nak(0)
        try:
            if message.attempt > retry.attempts:  # whoever had it before has died of it
                reason = f"delivered {message.attempt - 1} times, and never answered"
                answer = await self._dead(message, reason, message.attempt - 1)
                return
            try:
                await self._handler(Message(dict(message.header), message.body))
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                answer = await self._failed(message, error)
            except Exception as error:
                answer = await self._failed(message, error)
            else:
                answer = ACK
        finally:
            self._held.pop(message.sequence, None)
            if answer in (ACK, TERM):
                self._done[message.sequence, message.stored] = None
                if len(self._done) > _DONE:
                    del self._done[next(iter(self._done))]
            await self._answer(message, answer)

    async def _failed(self, event: Event, error: BaseException) -> bytes:
        attempt, attempts = event.attempt, self._owner.retry.attempts
        logger.error(
            "a subscriber of %r failed, attempt %d of %d", self.topic, attempt, attempts,
            exc_info=error,
        )  # fmt: skip
        if attempt >= attempts:
            return await self._dead(event, f"{type(error).__name__}: {error}", attempt)
        return nak(self._owner.retry.pause(attempt))

    async def _dead(self, event: Event, reason: str, attempts: int) -> bytes:
        """Bury an event that failed too often; it comes again if that fails too."""
        topic = self._owner.retry.topic(self.topic)
        if topic:
            buried = dead_letter(
                Message(event.header, event.body), topic=self.topic, queue=self.queue,
                attempts=attempts, reason=reason,
            )  # fmt: skip
            try:
                await self._owner.publish(topic, buried)
            except Error as error:
                logger.warning("an event of %r could not be buried: %s", self.topic, error)
                return nak(self._owner.retry.longest)
        logger.warning("an event of %r is dead after %d attempts", self.topic, attempts)
        return TERM

    async def _answer(self, event: Event, answer: bytes) -> None:
        if answer == ACK and event.attempt == 1:
            # Many go out together. Those a crash leaves unsaid come again, and are said singly
            # then, so that nothing is counted as dead that was handled before what crashed.
            self._owner.link.publish_soon(event.reply, ACK)
            return
        try:
            await self._owner.link.publish(event.reply, answer, confirm=answer == ACK)
        except Unavailable as error:
            logger.info("an event of %r will come again, as nobody heard: %s", self.topic, error)

    # The end

    async def unsubscribe(self) -> None:
        waiting = [event for event in self._line.events if isinstance(event, Event)]
        if not self.end():
            return
        try:
            await self._leave(waiting)
        finally:
            await self.finish()

    async def _leave(self, waiting: list[Event]) -> None:
        self._owner.gone(self)
        if self._interest is not None:
            await self._owner.link.unsubscribe(self._interest, drain=True)
        for event in waiting:
            self._held.pop(event.sequence, None)
            self._owner.link.publish_soon(event.reply, nak(0))

    async def finish(self) -> None:
        """Wait for deliveries that run; the server is kept waiting as well, then left alone."""
        try:
            await super().finish()
        finally:
            if self._keeper is not None:
                self._keeper.cancel()
                await asyncio.gather(self._keeper, return_exceptions=True)
            if not self.queue and self._consumer:
                with contextlib.suppress(Error):
                    await self._owner.api.delete_consumer(self._stream, self._consumer)
