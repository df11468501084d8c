"""Module _redis_consumer is a subscription to a stream: what it holds, and what becomes of that."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import logging
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

from shoal.broker import Deliver
from shoal.broker._local import Limits, Line, LocalSubscription
from shoal.broker._redis_group import EPHEMERAL, Entry, Group
from shoal.broker._redis_keeper import Keeper
from shoal.broker._redis_link import Refused
from shoal.broker._retry import Retry, dead_letter
from shoal.errors import BadRequest, Error
from shoal.message import Message

logger = logging.getLogger(__name__)

BLOCK = 2.0  # seconds Redis waits for the next event before it answers that there is none
PAUSE = 0.25  # seconds after something failed
LOOK = 2.0  # seconds between two looks for what died consumers hold, at most
BATCH = 256  # entries to read at a time, and acknowledgements

Publish = Callable[[str, Message], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What the subscriptions of a broker have in common. Times are seconds."""

    prefetch: int
    min_idle: float
    forget: float
    retry: Retry
    publish: Publish


class Delivery(Message):
    """An event on its way to the handler; it holds what it needs to come again."""

    id: bytes = b""
    count: int = 1
    """How often its handling was begun, as Redis knows."""
    fresh: bool = True
    """Whether that is one too many, as it was just given out."""


class StreamSubscription(LocalSubscription):
    """Reads new events, runs `deliver`, acknowledges, tries again, and takes over what others left.

    Every event it holds is pending for its consumer in Redis, and kept from being idle, until it
    is done with; what is lost with this process is taken over by another consumer of the group.
    """

    def __init__(
        self,
        line: Line,
        deliver: Deliver,
        group: Group,
        keepers: tuple[Keeper, Keeper],
        terms: Terms,
        gone: Callable[[StreamSubscription], object],
    ) -> None:
        """`keepers` are the connection to read on, which blocks, and the one for all else.

        `gone` is called at the end.
        """
        self._group = group
        self._reader, self._keeper = keepers
        self._terms = terms
        self._user = deliver
        self._gone = gone
        self._held: dict[bytes, Delivery] = {}  # waiting, running, delayed or dead
        self._delayed: list[tuple[float, bytes]] = []
        self._dead: deque[tuple[Delivery, object]] = deque()
        self._done: dict[bytes, None] = {}  # not acknowledged yet
        self._stray = True  # whether Redis may have given this consumer what it does not hold
        self._room = asyncio.Event()
        self._wake = asyncio.Event()
        self._closing: asyncio.Task[None] | None = None
        super().__init__(line, self._handle)
        loop = asyncio.get_running_loop()
        self._look = self._renew = self._patient = loop.time()
        self._tidy = loop.time() + terms.forget / 2
        blank = contextvars.Context()
        self._fetching = loop.create_task(self._fetch(), context=blank)
        self._tending = loop.create_task(self._tend(), context=blank)

    def __repr__(self) -> str:
        state = f"{len(self._held)} held, {len(self._delayed)} of them delayed"
        return f"<StreamSubscription {self.topic!r} queue={self.queue!r} {state}>"

    @property
    def error(self) -> Exception | None:
        """Why nothing can be read now."""
        return self._reader.error

    async def unsubscribe(self) -> None:
        self._line.events.clear()  # they wait in Redis for the next one
        if self.end():
            # A task of its own: when a handler asks for it, that is one to wait for.
            self._closing = asyncio.get_running_loop().create_task(
                self._close(), context=contextvars.Context()
            )
        if self._closing is not None and not self.inside:
            await asyncio.shield(self._closing)

    # From Redis to the handler and back

    @property
    def _space(self) -> int:
        """How many more events may be on their way to the handler."""
        return self._terms.prefetch - len(self._held) + len(self._delayed)

    @property
    def _free(self) -> int:
        """How many of them may be new ones: none when as many wait to be tried again."""
        return self._space if len(self._delayed) < self._terms.prefetch else 0

    async def _fetch(self) -> None:
        while not self.ended:
            if self._free <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            try:
                count = min(self._free, BATCH)
                self._take(await self._group.read(self._reader, count, BLOCK), fresh=True)
                continue
            except Refused as refused:
                if refused.code == "UNBLOCKED":
                    continue
                error: Exception = refused
            except Exception as failure:
                error = failure
                self._unsure()  # an answer may have been lost on its way
            await self._mend(error)

    async def _mend(self, error: Exception) -> None:
        """Make the group again if that is what is wrong, else wait a while."""
        if self.ended:
            return
        try:
            if isinstance(error, Refused) and error.code == "NOGROUP":
                await self._group.repair()
                logger.warning("%r was gone from Redis, and was made again", self._group)
                return
        except (Refused, Error) as failure:
            error = failure
        self._complain("reads nothing", error)
        await asyncio.sleep(PAUSE)

    def _complain(self, what: str, error: Exception) -> None:
        # Of a broken connection its keeper tells, and a lost group is made again.
        lost = isinstance(error, Refused) and error.code == "NOGROUP"
        usual = lost or isinstance(error, Error)
        unforeseen = not isinstance(error, Refused | Error)
        level = logging.DEBUG if usual else logging.ERROR
        logger.log(level, "%r %s: %s", self, what, error, exc_info=unforeseen)

    def _unsure(self) -> None:
        """Look soon at what Redis holds, but let all consumers show first that they live."""
        now = asyncio.get_running_loop().time()
        self._stray, self._look, self._renew = True, now, now
        self._patient = now + 2 * LOOK
        self._wake.set()

    def _take(self, entries: Iterable[Entry], *, fresh: bool) -> None:
        for entry in entries:
            if entry.id in self._held or entry.id in self._done or self.ended:
                continue
            try:
                message = entry.message()
            except BadRequest as error:
                body = entry.fields.get(b"body", b"")
                self._bury(Delivery({}, body, None, entry.id, entry.count), error)
                continue
            delivery = Delivery(message.header, message.body, None, entry.id, entry.count, fresh)
            # One whose consumer died may not have been begun: it has another chance.
            if not fresh and entry.count >= max(self._terms.retry.attempts, 2):
                self._bury(delivery, "its consumers ended while they handled it")
            else:
                self._held[entry.id] = delivery
                self._line.offer(delivery)

    async def _handle(self, message: Message) -> None:
        assert isinstance(message, Delivery)
        if not message.fresh:
            message.count += 1
            try:  # first, as it may be what ends this process
                await self._group.keep([message.id], count=message.count)
            except (Refused, Error) as error:
                self._complain("cannot count an attempt", error)
        message.fresh = False
        try:
            await self._user(Message(dict(message.header), message.body))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                self._failed(message, "the handler was cancelled from inside")
            raise
        except Exception as error:
            self._failed(message, error)
            raise
        self._finish(message.id)

    def _failed(self, delivery: Delivery, reason: object) -> None:
        retry = self._terms.retry
        if delivery.count >= retry.attempts:
            self._bury(delivery, reason)
            return
        due = asyncio.get_running_loop().time() + retry.pause(delivery.count)
        heapq.heappush(self._delayed, (due, delivery.id))
        self._changed()

    def _bury(self, delivery: Delivery, reason: object) -> None:
        self._held[delivery.id] = delivery
        self._dead.append((delivery, reason))
        self._changed()

    def _finish(self, id: bytes) -> None:
        self._held.pop(id, None)
        self._done[id] = None
        self._changed()

    def _changed(self) -> None:
        self._room.set()
        self._wake.set()

    # What is to be told to Redis

    async def _tend(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._wake.clear()
            if not self._done and not self._dead:
                due = [self._look, self._renew, self._tidy]
                if self._delayed and self._space > 0:
                    due.append(self._delayed[0][0])
                with suppress(TimeoutError):
                    async with asyncio.timeout_at(min(due)):
                        await self._wake.wait()
            try:
                await self._settle()
                self._again(loop.time())
                await self._keep(loop.time())
            except Exception as error:
                self._complain("cannot tell Redis", error)
                await asyncio.sleep(PAUSE)

    async def _settle(self) -> None:
        """Acknowledge what is done with, and put away what is dead."""
        while self._done:
            ids = list(self._done)[:BATCH]
            await self._group.ack(ids)
            for id in ids:
                del self._done[id]
        while self._dead:
            delivery, reason = self._dead[0]
            topic = self._terms.retry.topic(self.topic)
            if topic:
                letter = dead_letter(
                    delivery, topic=self.topic, queue=self.queue,
                    attempts=delivery.count, reason=reason,
                )  # fmt: skip
                await self._terms.publish(topic, letter)
            self._dead.popleft()
            logger.error(
                "an event of %r, delivered %d times, is %s: %s",
                self.topic, delivery.count, f"in {topic!r} now" if topic else "dropped", reason,
            )  # fmt: skip
            self._finish(delivery.id)

    def _again(self, now: float) -> None:
        """Deliver what has waited long enough after it failed."""
        while self._delayed and self._delayed[0][0] <= now and self._space > 0:
            _, id = heapq.heappop(self._delayed)
            self._line.offer(self._held[id])
            self._room.set()

    async def _keep(self, now: float) -> None:
        """Show that this consumer lives, and look for what those left that do not."""
        terms = self._terms
        if now >= self._renew:
            self._renew = now + terms.min_idle / 3
            await self._group.live()
            if self._held:
                await self._group.keep(list(self._held))
        if now >= self._look:
            self._look = now + min(terms.min_idle / 2, LOOK)
            await self._adopt(now)
        if now >= self._tidy:
            self._tidy = now + terms.forget / 2
            await self._group.tidy(terms.forget)

    async def _adopt(self, now: float) -> None:
        """Take what Redis has given to this consumer unseen, and what others left."""
        terms = self._terms
        if self._stray and self._free > 0:
            mine = await self._group.mine(4 * terms.prefetch + BATCH)
            stray = [id for id in mine if id not in self._held and id not in self._done]
            entries, trimmed = await self._group.take(stray[: self._free])
            self._stray = bool(stray)
            self._take(entries, fresh=False)
            self._lost(trimmed)
        if self._free > 0 and now >= self._patient:
            entries, trimmed = await self._group.take_idle(terms.min_idle, self._free)
            self._take(entries, fresh=False)
            self._lost(trimmed)

    def _lost(self, count: int) -> None:
        if count:
            logger.error("%d events of %r were trimmed unhandled", count, self.topic)

    # The end

    async def _close(self) -> None:
        self._room.set()
        try:
            if not self._group.name.startswith(EPHEMERAL):
                await self._reader.unblock(self._keeper)
                # An answer under way would be pending for nobody: it is waited for.
                await asyncio.wait([self._fetching], timeout=BLOCK + PAUSE)
        finally:
            self._fetching.cancel()
            await self._reader.close()
            try:
                await self.finish()
            finally:
                self._tending.cancel()
                await asyncio.wait([self._fetching, self._tending])
                try:
                    await self._leave()
                except (Refused, Error) as error:
                    logger.info("%r left no word in Redis: %s", self, error)
                finally:
                    self._gone(self)

    async def _leave(self) -> None:
        """Acknowledge what is done, give back what is not, and be gone."""
        await self._settle()
        if not self._group.name.startswith(EPHEMERAL):
            for id, count in (await self._group.mine(4 * self._terms.prefetch + BATCH)).items():
                begun = id in self._held and not self._held[id].fresh
                await self._group.give_back(id, count if begun else max(count - 1, 0))
        await self._group.leave()


def line(topic: str, queue: str, *, prefetch: int, concurrency: int, grace: float) -> Line:
    """Return where a subscription's events wait for their turn."""
    limits = Limits(unread=2 * prefetch, concurrency=concurrency, grace=grace)
    return Line(topic, queue, limits, lambda _: None)
