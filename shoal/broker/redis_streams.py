"""Module redis_streams is the broker on Redis streams: events wait, are acked, come again."""

from __future__ import annotations

import asyncio
import socket
import uuid
from typing import ClassVar

from shoal.broker import Broker, Deliver, Guarantees, Subscription
from shoal.broker._envelope import sendable
from shoal.broker._local import check_topic
from shoal.broker._redis_consumer import StreamSubscription, Terms, line
from shoal.broker._redis_group import BODY, EPHEMERAL, HEADER, Group, header
from shoal.broker._redis_keeper import Keeper, Ways
from shoal.broker._redis_link import ID, Link, Refused, primary
from shoal.broker._redis_settings import RedisSettings, StreamSettings, servers
from shoal.broker._retry import Retry
from shoal.errors import BadRequest, TooLarge, Unavailable
from shoal.message import Message
from shoal.tls import Tls

__all__ = ["RedisSettings", "RedisStreamsBroker", "Retry", "StreamSettings"]

OLDEST = (6, 2)  # the first with XAUTOCLAIM
LONGEST_HEADER = 256 * 1024  # bytes of JSON


class RedisStreamsBroker(Broker):
    """A topic is a stream, a queue one of its consumer groups. The format is Shoal's own.

    At least once: an event is acknowledged when its handler has returned. One that raised comes
    again after a pause, `retry.attempts` times in all, and then goes to the topic of dead letters;
    what a process held that died is taken over by another after `min_idle` seconds. A queue's
    events wait while nobody is there, in a stream of about `length`; a subscription without a
    queue gets what is published while it stands. Each runs `concurrency` handlers at a time and
    holds `prefetch` events. In order, if none has to come again.
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
        settings: RedisSettings | None = None,
        streams: StreamSettings | None = None,
        retry: Retry | None = None,
        tls: Tls | None = None,
        max_message: int = 4 * 1024 * 1024,
        concurrency: int = 1,
        prefetch: int = 64,
    ) -> None:
        """Take `[user:password@]host[:port][/database]`, several with commas between.

        `max_message` bounds an event's body in bytes. Raises BadRequest for an address that is
        none.
        """
        if prefetch < concurrency:
            raise ValueError(f"{concurrency} handlers at a time need a prefetch of as many events")
        self.address = ""
        self._streams = streams or StreamSettings()
        self._max_message = max_message
        self._concurrency = concurrency
        self._ways = Ways(
            servers=servers(address, ID),
            settings=settings or RedisSettings(),
            tls=tls,
            limit=max(max_message, LONGEST_HEADER),
            check=_check,
        )
        self._terms = Terms(
            prefetch=prefetch,
            min_idle=self._streams.min_idle,
            forget=self._streams.forget,
            retry=retry or Retry(),
            publish=self._add,
        )
        self._keeper = Keeper(self._ways)
        self._consumer = self._streams.consumer or f"{socket.gethostname()}-{uuid.uuid4().hex[:8]}"
        self._subscriptions: dict[StreamSubscription, str] = {}

    def __repr__(self) -> str:
        topics = sorted(f"{one.topic}/{one.queue}" for one in self._subscriptions)
        return f"RedisStreamsBroker({self._consumer}, {self._keeper!r}, {topics})"

    @property
    def error(self) -> Exception | None:
        """Why it is not well: a connection that broke and is not there again."""
        errors = [self._keeper.error, *(one.error for one in self._subscriptions)]
        return next((one for one in errors if one is not None and self.address), None)

    async def connect(self) -> None:
        await self._keeper.connect()
        self.address = self._keeper.address or str(self._ways.servers[0])

    async def disconnect(self) -> None:
        self.address = ""
        await asyncio.gather(*(one.unsubscribe() for one in list(self._subscriptions)))
        await self._keeper.close()

    async def publish(self, topic: str, message: Message) -> None:
        check_topic(topic)
        if len(message.body) > self._max_message:
            size = f"the event is {len(message.body)} bytes, the limit is {self._max_message}"
            raise TooLarge(size, id=ID)
        sent = Message({"Micro-Topic": topic, **sendable(message.headers())}, message.body)
        if len(header(sent.header)) > LONGEST_HEADER // 2:
            raise TooLarge(f"the event's header is over {LONGEST_HEADER // 2} bytes", id=ID)
        await self.connect()
        try:
            await self._add(topic, sent)
        except Refused as refused:
            raise refused.error() from refused

    async def _add(self, topic: str, message: Message) -> None:
        fields = HEADER, header(message.header), BODY, message.body
        length = self._streams.length
        await self._keeper.call("XADD", self._key(topic), "MAXLEN", "~", length, "*", *fields)

    def _key(self, topic: str) -> bytes:
        return f"{self._streams.prefix}{topic}".encode()

    async def subscribe(self, topic: str, deliver: Deliver, *, queue: str = "") -> Subscription:
        check_topic(topic, queue)
        if queue.startswith(EPHEMERAL):
            raise BadRequest(f"a queue's name cannot begin with {EPHEMERAL}", id=ID)
        await self.connect()
        name = self._name(topic, queue)
        group = queue or f"{EPHEMERAL}{name}.{uuid.uuid4().hex[:8]}"
        commands = Group(self._keeper, self._key(topic), group, name)
        reader = Keeper(self._ways)
        try:
            await commands.create()
            await reader.connect()
        except BaseException as error:
            await reader.close()
            if isinstance(error, Refused):
                raise error.error() from error
            raise
        waiting = line(
            topic,
            queue,
            prefetch=self._terms.prefetch,
            concurrency=self._concurrency,
            grace=self._streams.grace,
        )
        keepers, gone = (reader, self._keeper), self._subscriptions.pop
        subscription = StreamSubscription(waiting, deliver, commands, keepers, self._terms, gone)
        self._subscriptions[subscription] = name
        return subscription

    def _name(self, topic: str, queue: str) -> str:
        """Return the first free name of a consumer, which is the same after a restart."""
        taken = {
            name
            for one, name in self._subscriptions.items()
            if (one.topic, one.queue) == (topic, queue)
        }
        number = next(n for n in range(1, len(taken) + 2) if f"{self._consumer}.{n}" not in taken)
        return f"{self._consumer}.{number}"


def _check(link: Link) -> None:
    """Refuse what has no streams to be used here."""
    if link.info.get("mode") == "cluster":
        raise Unavailable(
            f"Redis at {link.server} is a cluster, which redis-streams does not use: give it a "
            "single primary",
            id=ID,
        )
    primary(link)
    if _version(link.info.get("version", "0")) < OLDEST:
        old = f"Redis at {link.server} is too old: redis-streams needs 6.2 or newer"
        raise Unavailable(old, id=ID)


def _version(text: str) -> tuple[int, ...]:
    """Return the numbers; of a server that counts in another way, enough."""
    try:
        return tuple(int(word) for word in text.split(".")[:2])
    except ValueError:
        return OLDEST
