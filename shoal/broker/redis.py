"""Module redis is the broker on Redis's publish and subscribe, in Go Micro's format."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, ClassVar

from shoal.broker import Broker, Deliver, Guarantees, Subscription
from shoal.broker._envelope import decode, encode, received, sendable
from shoal.broker._local import Limits, Line, LocalSubscription, check_topic
from shoal.broker._redis_keeper import Keeper, Ways
from shoal.broker._redis_link import ID, Link, Refused, TooLong, primary
from shoal.broker._redis_settings import RedisSettings, servers
from shoal.errors import BadRequest, Error, TooLarge, Unavailable
from shoal.message import Message
from shoal.tls import Tls

logger = logging.getLogger(__name__)

ROOM = 30.0  # seconds a subscriber may take no event before the log says so
HEADER = 256 * 1024  # bytes of JSON beside the body, in what is read


class RedisBroker(Broker):
    """Events are Go Micro's JSON on the channel named like the topic, as its plugin sends them.

    At most once: what is published while a subscriber is not connected does not reach it. There
    are no queues. Every subscription has a connection; one that is slow holds up nobody else: its
    events wait, `unread` of them here and the rest in Redis, which drops the connection beyond its
    `client-output-buffer-limit pubsub`. Of several addresses the first that is a primary is used.
    """

    guarantees: ClassVar[Guarantees] = Guarantees(ordered=True, in_flight=True)

    def __init__(
        self,
        address: str = "",
        *,
        settings: RedisSettings | None = None,
        tls: Tls | None = None,
        max_message: int = 4 * 1024 * 1024,
        unread: int = 1024,
        concurrency: int = 1,
        grace: float = 30.0,
    ) -> None:
        """Take `[user:password@]host[:port][/database]`, several with commas between.

        `max_message` bounds an event's body in bytes, `grace` is seconds for deliveries that run
        when they are unsubscribed. Raises BadRequest for an address that is none.
        """
        self.address = ""
        self._max_message = max_message
        self._limits = Limits(unread=unread, concurrency=concurrency, timeout=ROOM, grace=grace)
        self._ways = Ways(
            servers=servers(address, ID),
            settings=settings or RedisSettings(),
            tls=tls,
            limit=max_message * 4 // 3 + HEADER,
            check=_check,
        )
        self._keeper = Keeper(self._ways)
        self._subscriptions: set[_RedisSubscription] = set()

    def __repr__(self) -> str:
        topics = sorted(one.topic for one in self._subscriptions)
        return f"RedisBroker({self._keeper!r}, {topics})"

    @property
    def error(self) -> Exception | None:
        """Why it is not well: a connection that broke and is not there again."""
        errors = [one.keeper.error for one in self._subscriptions]
        return next((one for one in (self._keeper.error, *errors) if one and self.address), None)

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
        # Go Micro's subscribers find their handler by Micro-Topic.
        event = encode({"Micro-Topic": topic, **sendable(message.headers())}, message.body)
        await self.connect()
        try:
            await self._keeper.call("PUBLISH", topic.encode(), event)
        except Refused as refused:
            raise refused.error() from refused

    async def subscribe(self, topic: str, deliver: Deliver, *, queue: str = "") -> Subscription:
        check_topic(topic)
        if queue:
            raise BadRequest(
                f"the broker redis has no queues, as in Go Micro: every subscriber of {topic!r} "
                "gets every event; use redis-streams for a queue",
                id=ID,
            )
        await self.connect()
        line = Line(topic, "", self._limits, lambda _: None)
        subscription = _RedisSubscription(line, deliver)
        subscription.begin(self._ways, self._subscriptions)
        try:
            await subscription.keeper.connect()
        except BaseException:
            await subscription.unsubscribe()
            raise
        return subscription


class _RedisSubscription(LocalSubscription):
    keeper: Keeper

    def begin(self, ways: Ways, all: set[_RedisSubscription]) -> None:
        self.keeper = Keeper(ways, push=self._push, begin=self._ask)
        self._all = all
        all.add(self)

    async def unsubscribe(self) -> None:
        if self.end():
            try:
                await self.keeper.close()
                await self.finish()
            finally:
                self._all.discard(self)

    async def _ask(self, link: Link) -> None:
        await link.call("SUBSCRIBE", self.topic.encode(), timeout=5.0)

    async def _push(self, pushed: list[Any]) -> None:
        data = pushed[2]
        if isinstance(data, TooLong):
            logger.error("an event of %r is over the limit: %s bytes", self.topic, data.decode())
            return
        try:
            message = decode(data)
        except Error as error:
            logger.error("what was published to %r is no event: %s", self.topic, error)
            return
        message = Message(received(message.header), message.body)
        while True:
            try:
                await self._line.put(message)
                return
            except Unavailable as error:
                logger.warning("%s; more events wait in Redis", error)


def _check(link: Link) -> None:
    """Refuse what is no place to publish; all servers of a cluster pass events on."""
    if link.info.get("mode") != "cluster":
        primary(link)
