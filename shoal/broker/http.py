"""Module http is the broker without a server: publishers post to the subscribers they find."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from shoal.broker import Broker, Deliver, Guarantees, Subscription
from shoal.broker._envelope import sendable
from shoal.broker._http_directory import Directory
from shoal.broker._http_posts import Posts
from shoal.broker._http_receiver import Receiver
from shoal.broker._http_targets import BROADCAST, CURRENT, Event, Target, choose
from shoal.broker._local import Limits, Line, LocalSubscription, Subscribers, check_topic
from shoal.errors import BadRequest, Error, TooLarge, Unavailable
from shoal.message import Message
from shoal.registry import Node, Record, Registry
from shoal.registry._advertise import advertised
from shoal.registry._registration import Registration
from shoal.tls import Tls

logger = logging.getLogger(__name__)

TTL, RENEWAL = 60.0, 30.0
ID = "shoal.broker"

# What can stand in a DNS name, and leaves room in its last label for the rest of a node's id.
_PLAIN = re.compile(r"([A-Za-z0-9_-]{1,63}\.){0,2}[A-Za-z0-9_-]{1,26}")


class HttpBroker(Broker):
    """Finds subscribers in the registry and posts events to them, as Go Micro v6's broker/http.

    At most once: publishing returns when the process of every subscriber, and one of each queue,
    has put the event in the queue of its handlers, or could not be reached in `timeout` seconds,
    which is logged. Of a queue another node is tried if the first certainly has not got it. The
    process listens from its first subscription on; `address` is empty before. Each subscription
    takes events in the order in which one publisher awaited its publishing, `concurrency` at a
    time; `unread` may wait.
    """

    guarantees: ClassVar[Guarantees] = Guarantees(groups=True, ordered=True, in_flight=True)

    def __init__(
        self,
        registry: Registry,
        address: str = "127.0.0.1:0",
        *,  # more than elsewhere: it is a server, a client and a queue, and all have a default
        tls: Tls | None = None,
        advertise: str = "",
        generations: Sequence[str] = (CURRENT,),
        max_message: int = 4 * 1024 * 1024,
        unread: int = 1024,
        concurrency: int = 1,
        timeout: float = 5.0,
        grace: float = 30.0,
    ) -> None:
        """Listen at `address`, and register `advertise` if others reach it under another one.

        `generations` are the names in the registry, with `<topic>` for the topic: add
        `go.micro.http.broker` for Go Micro v1.18, `<topic>` for v1.13 to v1.17, `topic:<topic>`
        for older. `max_message` bounds an event's body in bytes.
        """
        self.address = ""
        self._registry = registry
        self._bind = address or "127.0.0.1:0"
        self._tls = tls
        self._advertise = advertise
        self._generations = tuple(generations)
        self._max_message = max_message
        limits = Limits(unread=unread, concurrency=concurrency, timeout=timeout, grace=grace)
        self._subscribers = Subscribers(limits)
        self._stations: dict[tuple[str, str], _Station] = {}
        self._receiver = Receiver(self._find, tls=tls, max_message=max_message, timeout=30.0)
        self._directories: dict[str, Directory] = {}
        self._posts = Posts(tls, timeout)
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        topics = sorted(f"{topic}/{queue}" for topic, queue in self._stations)
        return f"HttpBroker({self.address or 'not listening'}, {topics}, {self._posts!r})"

    async def connect(self) -> None:
        """Do nothing: connections are made to those an event is for."""

    async def disconnect(self) -> None:
        async with self._lock:
            subscriptions = [one for one in self._subscribers.subscriptions() if one.end()]
            stations = list(self._stations.values())
            self._stations.clear()
            await asyncio.gather(*(station.stop() for station in stations))
            await self._receiver.close()
            self.address = ""
        # Handlers that still run may publish, subscribe, or disconnect as well.
        await asyncio.gather(*(one.finish() for one in subscriptions))
        directories = list(self._directories.values())
        self._directories.clear()
        await asyncio.gather(*(directory.close() for directory in directories))
        await self._posts.close()

    # Subscribing

    async def subscribe(self, topic: str, deliver: Deliver, *, queue: str = "") -> Subscription:
        check_topic(topic, queue)
        if queue == BROADCAST:
            raise BadRequest(f"a queue cannot be called {BROADCAST}", id=ID)
        async with self._lock:
            await self._receiver.listen(self._bind)
            self.address = self._receiver.address
            subscription = _HttpSubscription(self._subscribers.line(topic, queue), deliver)
            subscription.broker = self
            if (topic, queue) not in self._stations:
                try:
                    await self._register(topic, queue)
                except BaseException:
                    subscription.end()
                    raise
        return subscription

    async def _register(self, topic: str, queue: str) -> None:
        # Every queue of a topic has an id of its own. Go Micro has one for all, and so counts
        # on posts under it to reach all of them; posts for a queue then reach the others too.
        plain = (
            topic if _PLAIN.fullmatch(topic) else hashlib.sha256(topic.encode()).hexdigest()[:16]
        )
        address, _ = advertised(self.address, self._advertise)
        secure = "true" if self._tls is not None else "false"
        metadata = {"broker": "http", "secure": secure, "topic": topic}
        node = Node(f"{plain}-{uuid.uuid4()}", address, metadata)
        station = _Station(node.id, [])
        self._stations[topic, queue] = station
        try:
            for generation in self._generations:
                name = generation.replace("<topic>", topic)
                record = Record(name, queue or BROADCAST, (node,))
                registration = Registration(self._registry, record, ttl=TTL, interval=RENEWAL)
                station.registrations.append(registration)
                await registration.start()
                if name in self._directories:
                    self._directories[name].add(record)
        except BaseException as error:
            self._stations.pop((topic, queue), None)
            await station.stop()
            if isinstance(error, TimeoutError):
                raise Unavailable("the registry did not answer in time", id=ID) from error
            raise

    async def withdraw(self, topic: str, queue: str) -> None:
        """Deregister what nobody in this process subscribes to any more."""
        if any(line.queue == queue for line in self._subscribers.lines(topic)):
            return
        station = self._stations.pop((topic, queue), None)
        if station is not None:
            await station.stop()

    def _find(self, id: str, topic: str) -> Sequence[Line]:
        lines = self._subscribers.lines(topic)
        for queue in {line.queue for line in lines}:
            station = self._stations.get((topic, queue))
            if station is not None and station.id == id:
                return [line for line in lines if line.queue == queue]
        return ()

    # Publishing

    async def publish(self, topic: str, message: Message) -> None:
        check_topic(topic)
        if len(message.body) > self._max_message:
            raise TooLarge(
                f"the event is {len(message.body)} bytes, the limit is {self._max_message}", id=ID
            )
        header = {**sendable(message.headers()), "Micro-Topic": topic}
        event = Event(topic, header, message.body, {})
        event.envelope(CURRENT)  # what cannot be sent is an error even if nobody listens
        broadcast, queues = choose(await self._targets(topic))
        posts = [self._post_to_any(event, [target]) for target in broadcast]
        posts += [self._post_to_any(event, members) for members in queues]
        if len(posts) == 1:
            await posts[0]
        elif posts:
            await asyncio.gather(*posts)

    async def _targets(self, topic: str) -> list[Target]:
        directories = [(name, self._directory(name, topic)) for name in self._generations]
        under_way = [task for _, one in directories if (task := one.refresh(topic))]
        known = any(one.nodes(topic) for _, one in directories)
        if under_way and not (known and all(one.answered for _, one in directories)):
            await asyncio.wait(under_way)
        targets = [
            Target(generation, directory, version, node)
            for generation, directory in directories
            for (version, _), node in directory.nodes(topic).items()
        ]
        if not targets and not all(one.answered for _, one in directories):
            raise Unavailable(f"the registry does not tell who subscribes to {topic!r}", id=ID)
        return targets

    def _directory(self, generation: str, topic: str) -> Directory:
        name = generation.replace("<topic>", topic)
        directory = self._directories.get(name)
        if directory is None:
            directory = self._directories[name] = Directory(self._registry, name)
        return directory

    async def _post_to_any(self, event: Event, targets: Sequence[Target]) -> None:
        """Post to the first that takes it, as long as no other can have got it."""
        for target in targets:
            path = "/" if target.generation == CURRENT else "/_sub"
            try:
                await self._posts.post(target.node, path, event.envelope(target.generation))
                return
            except Error as error:
                logger.warning("an event of %r did not arrive: %s", event.topic, error)
                if error.code != 503 or error.unsent:
                    target.directory.failed(event.topic, target.version, target.node.id)
                if not error.unsent:
                    return


class _HttpSubscription(LocalSubscription):
    broker: HttpBroker

    async def unsubscribe(self) -> None:
        if self.end():
            try:
                await self.broker.withdraw(self.topic, self.queue)
            finally:
                await self.finish()


@dataclass(slots=True)
class _Station:
    """What this process has registered for a topic and queue."""

    id: str
    registrations: list[Registration]

    async def stop(self) -> None:
        await asyncio.gather(*(registration.stop() for registration in self.registrations))
