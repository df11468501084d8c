"""Module _etcd_watch tells of changes below a prefix, and of those it had missed."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context

from shoal.errors import Error
from shoal.registry import Change, Record
from shoal.registry._etcd_store import Event, HistoryLost, Position, Store

logger = logging.getLogger(__name__)

_UNREAD = 256  # changes; then etcd keeps what comes
_PATIENCE = 5.0  # seconds of silence until the member is asked whether it is alive
_BACKOFF = 2.0  # seconds at most between two tries
GRACE = 30.0  # seconds that nodes have to register again in a cluster that lost everything

Decode = Callable[[str, bytes], Record | None]


class Watch:
    """The changes one reader has not read yet, and the task that gathers them."""

    def __init__(self, store: Store, prefixes: Sequence[str], decode: Decode) -> None:
        self._followers = [_Follower(store, prefix, decode, self._put) for prefix in prefixes]
        self._unread: asyncio.Queue[Change | None] = asyncio.Queue(_UNREAD)
        self._ended = False
        self._failure: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self.started = asyncio.Event()
        """From now on nothing is missed; or it has ended."""

    @property
    def error(self) -> Exception | None:
        """Why changes come late, None if they do not."""
        return next((one.error for one in self._followers if one.error is not None), None)

    def start(self) -> None:
        """Begin to gather."""
        self._task = asyncio.get_running_loop().create_task(self._run(), context=Context())

    async def next(self) -> Change | None:
        """Return the next change, None at the end; raises Unavailable if it never began."""
        if self._ended and self._unread.empty():
            if self._failure is not None:
                raise self._failure
            return None
        change = await self._unread.get()
        return change if change is not None else await self.next()

    async def stop(self) -> None:
        """End it, and what runs for it."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._end()

    async def _put(self, change: Change) -> None:
        await self._unread.put(change)

    def _end(self) -> None:
        self._ended = True
        self.started.set()
        if self._unread.empty():
            self._unread.put_nowait(None)

    async def _run(self) -> None:
        try:
            for follower in self._followers:
                await follower.sync()
            self.started.set()
            async with asyncio.TaskGroup() as group:
                for follower in self._followers:
                    group.create_task(follower.run())
        except ExceptionGroup as errors:
            self._failure = errors.exceptions[0]
        except Exception as error:
            self._failure = error
        finally:
            self._end()


class _Follower:
    """What is known of one prefix, kept up to date whatever happens to the connection."""

    def __init__(
        self,
        store: Store,
        prefix: str,
        decode: Decode,
        put: Callable[[Change], Awaitable[None]],
    ) -> None:
        self._store = store
        self._prefix = prefix
        self._decode = decode
        self._put = put
        self._known: dict[str, bytes] = {}
        self._position: Position | None = None
        # Times of the event loop: when it was heard, and until when what is missing may come back.
        self._heard = 0.0
        self._doubtful: float | None = None
        self._began = False  # the member has accepted to be followed
        self.error: Exception | None = None

    async def sync(self) -> None:
        """Read all, and tell what is different from what was known."""
        snapshot = await self._store.read(self._prefix, sure=self._position is not None)
        before, self._position = self._position, snapshot.position
        if before is None:
            self._known = dict(snapshot.values)
            return
        now = asyncio.get_running_loop().time()
        if snapshot.position.revision < before.revision:
            # A cluster that began anew knows nobody. Its nodes live on, and will say so.
            self._doubtful = now + GRACE
        elif self._doubtful is not None and now >= self._doubtful:
            self._doubtful = None
        for event in _differences(self._known, snapshot.values):
            if event.value is not None or self._doubtful is None:
                await self._apply(event)

    async def run(self) -> None:
        """Follow for ever."""
        failures, lost = 0, False
        while True:
            member = self._store.member
            self._began = False
            try:
                if lost:
                    await self.sync()
                    lost = False
                await self._follow(member)
            except HistoryLost as error:
                lost = True
                logger.info("etcd: reading all of %s again: %s", self._prefix, error)
            except Error as error:
                self._store.avoid(member)
                if self.error is None:
                    logger.warning("etcd: the watch of %s is interrupted: %s", self._prefix, error)
                self.error = error
            failures = 0 if self._began else failures + 1
            pause = min(0.05 * 2 ** min(failures, 10), _BACKOFF)
            await asyncio.sleep(random.uniform(0.5, 1.0) * pause)

    async def _follow(self, member: str) -> None:
        """Follow one member as long as it is alive."""
        assert self._position is not None
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        reading = self._store.follow(member, self._prefix, self._position, self._deliver)
        task = loop.create_task(reading)
        try:
            while not task.done():
                await asyncio.wait([task], timeout=_PATIENCE)
                if self._doubtful is not None and loop.time() >= self._doubtful:
                    raise HistoryLost("whoever has not come back in time is gone")
                if not task.done() and loop.time() - self._heard >= _PATIENCE:
                    await self._store.probe(member)
            task.result()
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _deliver(self, events: Sequence[Event]) -> None:
        if self.error is not None:
            logger.info("etcd: the watch of %s goes on", self._prefix)
        self.error, self._began = None, True
        self._heard = asyncio.get_running_loop().time()
        for event in events:
            await self._apply(event)
        if events and self._position is not None:
            # Not before all are told: what is told twice is not told the second time.
            self._position = Position(events[-1].revision, self._position.term)

    async def _apply(self, event: Event) -> None:
        before = self._known.get(event.key)
        if event.value == before:
            return
        was = None if before is None else self._decode(event.key, before)
        now = None if event.value is None else self._decode(event.key, event.value)
        if now is not None:
            await self._put(Change("create" if was is None else "update", now))
        elif was is not None:
            await self._put(Change("delete", was))
        # Not before it is told: if that is cancelled, it is told the next time.
        if event.value is None:
            del self._known[event.key]
        else:
            self._known[event.key] = event.value


def _differences(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> list[Event]:
    gone = [Event(key, None, 0) for key in before if key not in after]
    return gone + [Event(key, value, 0) for key, value in after.items()]
