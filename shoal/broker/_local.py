"""Module _local delivers events to the subscribers inside this process."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from shoal.broker import Deliver, Subscription
from shoal.errors import BadRequest, Unavailable
from shoal.message import Message

logger = logging.getLogger(__name__)

_TURN = 64  # deliveries in a row before other tasks of the loop run
_LAST_WORD = 1.0  # seconds a cancelled delivery has to clean up

_inside: contextvars.ContextVar[LocalSubscription | None] = contextvars.ContextVar(
    "shoal.broker.inside", default=None
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much waits and for how long."""

    unread: int = 1024
    """Events that may wait for a subscription (or a queue, together); then publishers wait."""
    concurrency: int = 1
    """Deliveries of one subscription at a time; with one they keep the order."""
    timeout: float = 30.0
    """Seconds a publisher waits for room."""
    grace: float = 30.0
    """Seconds that unsubscribing waits for deliveries that run, before it cancels them."""

    def __post_init__(self) -> None:
        if self.unread < 1 or self.concurrency < 1:
            raise ValueError("a broker needs room for an event and one delivery at a time")


class Line:
    """Events that wait for one subscription, or for the first free one of a queue."""

    def __init__(
        self, topic: str, queue: str, limits: Limits, empty: Callable[[Line], None]
    ) -> None:
        """Call `empty` when the last subscription has left."""
        self.topic = topic
        self.queue = queue
        self.limits = limits
        self.events: deque[Message] = deque()
        self.members: list[LocalSubscription] = []
        self._empty = empty
        self._loop = asyncio.get_running_loop()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._waiting: dict[asyncio.Future[bool], Message] = {}  # publishers, first come first

    def __repr__(self) -> str:
        return f"Line({self.topic!r}, {self.queue!r}, {len(self.events)} events)"

    def offer(self, message: Message) -> bool:
        """Take an event if there is room now, and somebody."""
        if not self.members or self._waiting or len(self.events) >= self.limits.unread:
            return False
        self._add(message)
        return True

    async def put(self, message: Message) -> bool:
        """Take an event, waiting for room; returns False if everybody left meanwhile.

        Raises Unavailable when the subscriber makes no room in time.
        """
        if self.offer(message) or not self.members:
            return bool(self.members)
        room: asyncio.Future[bool] = self._loop.create_future()
        self._waiting[room] = message
        try:
            async with asyncio.timeout(self.limits.timeout):
                return await room
        except TimeoutError:
            if room.done() and not room.cancelled():
                return room.result()  # in the last moment
            raise Unavailable(
                f"a subscriber of {self.topic!r} has {len(self.events)} events waiting and made no "
                f"room for another within {self.limits.timeout:g} s",
                id="shoal.broker",
            ) from None
        finally:
            self._waiting.pop(room, None)

    def take(self) -> Message:
        """Return the next event and let in one that waits for room."""
        message = self.events.popleft()
        while self._waiting and len(self.events) < self.limits.unread:
            room = next(iter(self._waiting))
            waiting = self._waiting.pop(room)
            if not room.done():
                room.set_result(True)
                self._add(waiting)
        return message

    async def wait(self) -> None:
        """Wait until there may be something to do."""
        wake = self._loop.create_future()
        self._idle.append(wake)
        try:
            await wake
        except asyncio.CancelledError:
            if not wake.cancelled() and self.events and self._idle:
                self._wake()  # it was this one's turn, which another takes
            raise

    def leave(self, member: LocalSubscription) -> None:
        """Take a subscription out; with the last one the events that wait are dropped."""
        self.members.remove(member)
        while self._idle:
            self._wake()
        if self.members:
            return
        self._empty(self)
        if self.events:
            logger.info("%d events of %r wait no more: unsubscribed", len(self.events), self.topic)
        self.events.clear()
        for room in self._waiting:
            if not room.done():
                room.set_result(False)
        self._waiting.clear()

    def _add(self, message: Message) -> None:
        self.events.append(message)
        if self._idle:
            self._wake()

    def _wake(self) -> None:
        wake = self._idle.popleft()
        if not wake.done():
            wake.set_result(None)
        elif self._idle and self.events:
            self._wake()  # that one was cancelled


class LocalSubscription(Subscription):
    """Runs `deliver` for the events of a line."""

    def __init__(self, line: Line, deliver: Deliver) -> None:
        self.topic = line.topic
        self.queue = line.queue
        self.ended = False
        self._line = line
        self._deliver = deliver
        line.members.append(self)
        # Deliveries inherit nothing from whoever subscribed: no deadline, no metadata.
        self._tasks = [
            asyncio.get_running_loop().create_task(self._work(), context=contextvars.Context())
            for _ in range(line.limits.concurrency)
        ]

    def __repr__(self) -> str:
        state = "ended" if self.ended else f"{len(self._line.events)} events waiting"
        return f"<{type(self).__name__} {self.topic!r} queue={self.queue!r} {state}>"

    @property
    def inside(self) -> bool:
        """Whether one of its own deliveries asks."""
        return _inside.get() is self

    async def unsubscribe(self) -> None:
        if self.end():
            await self.finish()

    def end(self) -> bool:
        """Let no delivery start any more; returns whether this call ended it."""
        if self.ended:
            return False
        self.ended = True
        self._line.leave(self)
        return True

    async def finish(self) -> None:
        """Wait for the deliveries that run, for the grace time; at once when called by one."""
        if self.inside:
            return
        running = set(self._tasks)
        try:
            _, running = await asyncio.wait(running, timeout=self._line.limits.grace)
        finally:
            for task in running:
                task.cancel()
        if running:
            logger.warning("%r still had deliveries running, which were cancelled", self)
            await asyncio.wait(running, timeout=_LAST_WORD)

    async def _work(self) -> None:
        _inside.set(self)
        line = self._line
        turn = 0
        while not self.ended:
            if not line.events:
                turn = 0
                await line.wait()
                continue
            await self._run(line.take())
            turn += 1
            if turn >= _TURN or len(line.members) > 1:
                turn = 0
                await asyncio.sleep(0)

    async def _run(self, message: Message) -> None:
        try:
            await self._deliver(message)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            logger.warning("a delivery of %r was cancelled from inside", self.topic)
        except Exception:
            logger.exception("a subscriber of %r failed", self.topic)


class Subscribers:
    """The lines of one broker, by topic and queue."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._topics: dict[str, list[Line]] = {}

    def __repr__(self) -> str:
        return f"Subscribers({sorted(self._topics)})"

    def lines(self, topic: str) -> Sequence[Line]:
        """Return the lines of a topic."""
        return self._topics.get(topic, ())

    def line(self, topic: str, queue: str) -> Line:
        """Return the line a new subscription takes events from."""
        lines = self._topics.get(topic, [])
        for line in lines:
            if queue and line.queue == queue:
                return line
        line = Line(topic, queue, self.limits, self._remove)
        self._topics[topic] = [*lines, line]  # a new list: a publisher may be in the old one
        return line

    def _remove(self, line: Line) -> None:
        left = [other for other in self._topics.get(line.topic, ()) if other is not line]
        if left:
            self._topics[line.topic] = left
        else:
            self._topics.pop(line.topic, None)

    def subscriptions(self) -> list[LocalSubscription]:
        """Return every subscription."""
        return [m for lines in self._topics.values() for line in lines for m in line.members]


async def put(lines: Iterable[Line], message: Message) -> bool:
    """Give each line its own copy of an event: at once where there is room, then to the others.

    Returns whether any took it. Raises Unavailable when one made no room in time.
    """
    taken = False
    full: list[Line] = []
    for line in lines:
        if line.offer(Message(message.headers(), message.body)):
            taken = True
        elif line.members:
            full.append(line)
    if not full:
        return taken
    waits = [line.put(Message(message.headers(), message.body)) for line in full]
    # All at the same time, so that one that is stuck keeps nothing from the others.
    for result in await asyncio.gather(*waits, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result
        taken = taken or result
    return taken


def check_topic(topic: str, queue: str = "") -> None:
    """Raise BadRequest for a topic or queue that is no text any broker could carry."""
    if not topic:
        raise BadRequest("an event needs a topic", id="shoal.broker")
    for name in (topic, queue):
        try:
            name.encode()
        except UnicodeEncodeError:
            raise BadRequest(f"{name!r} is no valid text", id="shoal.broker") from None
