"""Module _broker has what the suite of brokers is made of: two brokers, subscribers, events."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from abc import abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import ClassVar

import pytest

from shoal.broker import Broker, Subscription
from shoal.errors import BadRequest
from shoal.message import Message

PROBE = "Probe"

HOSTILE = (
    "",
    " ",
    "a b",
    "a/b?c=d&id=e#f%00",
    "../../etc/passwd",
    "größe.日本",
    "a..b",
    ".a.",
    "a.*",
    ">",
    "#",
    "$SYS.x",
    "'\"; --",
    "a\r\nMicro-Topic: b",
    "a\tb",
    "a\0b",
    "\ud800",
    "x" * 70,
    "y" * 5000,
)


class Inbox:
    """A subscriber that keeps what it gets; probes are counted and kept out of it."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.probes = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.running = 0
        self.finished = 0
        self._more = asyncio.Event()

    async def deliver(self, message: Message) -> None:
        """Take an event, waiting for the gate to be open."""
        if message.header.get(PROBE):
            self.probes += 1
        else:
            self.messages.append(message)
            self.running += 1
            self._more.set()
            try:
                await self.gate.wait()
                self.finished += 1
            finally:
                self.running -= 1
        self._more.set()

    @property
    def bodies(self) -> list[bytes]:
        """The bodies of all events so far."""
        return [message.body for message in self.messages]

    async def until(self, enough: Callable[[], bool], deadline: float = 20.0) -> None:
        """Wait until the condition holds, which is looked at when something arrives."""
        async with asyncio.timeout(deadline):
            while not enough():
                self._more.clear()
                await self._more.wait()

    async def has(self, count: int, deadline: float = 20.0) -> list[bytes]:
        """Wait for so many events and return their bodies."""
        await self.until(lambda: len(self.messages) >= count, deadline)
        return self.bodies


async def reached(publisher: Broker, topic: str, *inboxes: Inbox, deadline: float = 20.0) -> None:
    """Publish probes until each of these subscribers gets what is published."""
    start = [inbox.probes for inbox in inboxes]
    async with asyncio.timeout(deadline):
        while any(i.probes <= s for i, s in zip(inboxes, start, strict=True)):
            await publisher.publish(topic, Message({PROBE: "1"}, b"probe"))
            await asyncio.sleep(0.01)


async def passed(publisher: Broker, topic: str, inbox: Inbox, deadline: float = 20.0) -> None:
    """Wait until what was published before has gone through to a subscriber, in order or not."""
    for _ in range(3):
        await reached(publisher, topic, inbox, deadline=deadline)


async def subscribed(broker: Broker, topic: str, queue: str = "") -> tuple[Inbox, Subscription]:
    """Subscribe a new inbox."""
    inbox = Inbox()
    return inbox, await broker.subscribe(topic, inbox.deliver, queue=queue)


def unique(base: str = "suite") -> str:
    """Return a topic nobody else has, so that suites can share a backend."""
    return f"{base}.{uuid.uuid4().hex[:12]}"


def event(number: int) -> Message:
    """Return an event that is told apart by its body."""
    return Message({"Content-Type": "text/plain"}, b"event %d" % number)


def files() -> int:
    """Return how many files and sockets this process has open, 0 where nobody can tell."""
    try:
        return len(os.listdir("/proc/self/fd"))
    except OSError:
        return 0


async def settles(look: Callable[[], bool], deadline: float = 20.0) -> None:
    """Wait until something that is nobody's to announce has become so."""
    end = asyncio.get_running_loop().time() + deadline
    while not look() and asyncio.get_running_loop().time() < end:  # noqa: ASYNC110  # any state
        await asyncio.sleep(0.01)
    assert look()


def count(inboxes: Iterable[Inbox]) -> Counter[bytes]:
    """Return how often each event has come to any of them."""
    return Counter(body for inbox in inboxes for body in inbox.bodies)


@contextlib.asynccontextmanager
async def running(work: Awaitable[None]) -> AsyncIterator[asyncio.Future[None]]:
    """Run something beside the block, and end it with the block."""
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def have(inboxes: Sequence[Inbox], number: int) -> bool:
    """Return whether they have so many events between them."""
    return count(inboxes).total() >= number


class BrokerSuite:
    """Two brokers of one backend: what one side publishes, the other's subscribers get.

    The attributes say what a backend truly cannot do; a suite of yours sets them.
    """

    deadline: ClassVar[float] = 20.0
    """Seconds until an event surely has arrived."""
    queues: ClassVar[bool] = True
    """Whether subscribers can share a topic's events; if not, a queue is a BadRequest."""
    ordered: ClassVar[bool] = True
    """Whether a subscription gets the events of one publisher in order."""
    bounded: ClassVar[bool] = True
    """Whether publishers wait for a subscriber with `unread` events waiting."""
    shared: ClassVar[bool] = False
    """Whether both sides are the same object."""
    biggest: ClassVar[int] = 1 << 20
    """Bytes of the largest body to try."""

    @abstractmethod
    def make(self, *, unread: int = 1024) -> Broker:
        """Return a broker; all that one test makes reach each other.

        `unread` is how many events may wait for a subscription, where `bounded`.
        """

    @contextlib.asynccontextmanager
    async def two(self, *, unread: int = 1024) -> AsyncIterator[tuple[Broker, Broker]]:
        """Make both sides, and disconnect them after the block."""
        async with asyncio.timeout(6 * self.deadline):
            one = self.make(unread=unread)
            other = one if self.shared else self.make(unread=unread)
            try:
                yield one, other
            finally:
                await one.disconnect()
                await other.disconnect()

    async def members(self, topic: str, queue: str, *brokers: Broker) -> list[Inbox] | None:
        """Return the members of a queue, None if this broker has none, and says so."""
        if self.queues:
            return [(await subscribed(broker, topic, queue))[0] for broker in brokers]
        with pytest.raises(BadRequest):
            await subscribed(brokers[0], topic, queue)
        return None

    async def sent(self, message: Message) -> Message:
        """Publish a message on one side and return what arrives on the other."""
        async with self.two() as (one, other):
            topic = unique()
            inbox, _ = await subscribed(one, topic)
            await reached(other, topic, inbox, deadline=self.deadline)
            await other.publish(topic, message)
            await inbox.has(1, self.deadline)
            return inbox.messages[0]
