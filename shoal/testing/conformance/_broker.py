"""Module _broker has the subscribers and events of the suite of brokers."""

from __future__ import annotations

import asyncio
import contextlib
import os
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

from shoal.broker import Broker, Subscription
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
