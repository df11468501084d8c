"""Module _etcd_keeper holds keys for as long as they are refreshed, and puts lost ones back."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import AsyncIterator
from contextvars import Context
from dataclasses import dataclass, field

from shoal.errors import Error
from shoal.registry._etcd_store import Store

logger = logging.getLogger(__name__)

BEAT = 10.0  # seconds at most between two renewals; what was lost is put back that soon
_EARLY = 1.0  # seconds too early at most, so that many are renewed in one question
_BACKOFF = 2.0  # seconds at most between two tries while etcd does not answer
_NEVER = math.inf


@dataclass(slots=True, eq=False)
class _Hold:
    """A key that is ours, and until when. Times are those of the event loop."""

    key: str
    value: bytes = b""
    seconds: int = 0
    lease: int = 0
    placed: bool = False
    deadline: float = _NEVER  # when its owner should have refreshed it
    due: float = _NEVER  # when to renew it
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def renewed(self) -> None:
        if self.seconds:
            pause = min(self.seconds / 3, BEAT) * random.uniform(0.8, 1.0)
            self.due = asyncio.get_running_loop().time() + pause
        else:
            self.due = _NEVER


class Keeper:
    """Renews the keys that were registered, in time and in few questions."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._holds: dict[str, _Hold] = {}
        self._task: asyncio.Task[None] | None = None
        self._sooner = asyncio.Event()  # something is due before the keeper meant to look
        self._looks = _NEVER  # when it means to
        self.error: Exception | None = None
        """Why keys may be lost, None if they are not."""

    @property
    def keys(self) -> list[str]:
        """The keys held, sorted."""
        return sorted(key for key, hold in self._holds.items() if hold.placed)

    async def hold(self, key: str, value: bytes, ttl: float | None) -> None:
        """Write a key, or refresh it: it is gone `ttl` seconds after the last time.

        One that stands there already is not written again.
        """
        seconds = 0 if ttl is None else max(1, math.ceil(ttl))
        async with self._locked(key) as hold:
            started = asyncio.get_running_loop().time()
            try:
                if not await self._stands(hold, value, seconds):
                    await self._place(hold, value, seconds)
            except BaseException:
                if not hold.placed:
                    self._holds.pop(key, None)
                raise
            hold.deadline = _NEVER if ttl is None else started + ttl
            hold.renewed()
            if self._holds.get(key) is not hold:  # closed meanwhile
                await self._store.remove([key])
                return
        if min(hold.due, hold.deadline) < self._looks:
            self._sooner.set()
        if ttl is not None and (self._task is None or self._task.done()):
            self._task = asyncio.get_running_loop().create_task(self._run(), context=Context())

    async def drop(self, key: str) -> None:
        """Remove a key; if that fails it is renewed no more, all the same."""
        async with self._locked(key):
            del self._holds[key]
            await self._store.remove([key])

    async def close(self, timeout: float) -> None:
        """Remove all keys, those within `timeout` seconds that can be. Never raises."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        problem: Exception | None = None
        try:
            async with asyncio.timeout(timeout):
                if self._holds:
                    await self._store.remove(list(self._holds))
        except Exception as error:
            problem = error
        self._holds.clear()
        self.error = None
        if problem is not None:
            why = str(problem) or "no answer in time"
            logger.warning("etcd: not all nodes were deregistered: %s", why)

    async def _stands(self, hold: _Hold, value: bytes, seconds: int) -> bool:
        return (
            hold.placed
            and (hold.value, hold.seconds) == (value, seconds)
            and await self._store.present(hold.key, value, seconds, hold.lease)
        )

    async def _place(self, hold: _Hold, value: bytes, seconds: int) -> None:
        lease = hold.lease if hold.seconds == seconds else 0
        hold.lease = await self._store.place(hold.key, value, seconds, lease)
        hold.value, hold.seconds, hold.placed = value, seconds, True

    @contextlib.asynccontextmanager
    async def _locked(self, key: str) -> AsyncIterator[_Hold]:
        """Give what is known of a key, to one at a time."""
        while True:
            hold = self._holds.setdefault(key, _Hold(key))
            async with hold.lock:
                if self._holds.get(key) is hold:  # else it was dropped meanwhile
                    yield hold
                    return

    async def _run(self) -> None:
        failures = 0
        while True:
            await self._pause(failures)
            try:
                await self._expire()
                await self._renew()
            except Exception as error:  # also what nobody foresaw: nodes must not be lost by it
                failures += 1
                if self.error is None:
                    unforeseen = not isinstance(error, Error)
                    logger.warning(
                        "etcd: registrations cannot be renewed: %s", error, exc_info=unforeseen
                    )
                self.error = error
            else:
                if self.error is not None:
                    logger.info("etcd: registrations are renewed again")
                failures, self.error = 0, None

    async def _pause(self, failures: int) -> None:
        """Sleep until something is due, or less long if a key comes that is due before."""
        loop = asyncio.get_running_loop()
        if failures:
            await asyncio.sleep(random.uniform(0.5, 1.0) * min(0.1 * 2**failures, _BACKOFF))
            return
        while True:
            self._sooner.clear()
            holds = self._holds.values()
            self._looks = min((min(one.due, one.deadline) for one in holds), default=_NEVER)
            if self._looks <= loop.time():
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(None if self._looks == _NEVER else self._looks):
                    await self._sooner.wait()

    async def _expire(self) -> None:
        """Take away what its owner has not refreshed in time."""
        for hold in list(self._holds.values()):
            async with hold.lock:
                late = hold.deadline <= asyncio.get_running_loop().time()
                if late and self._holds.get(hold.key) is hold:
                    del self._holds[hold.key]
                    logger.info("etcd: %s was not refreshed in time and is removed", hold.key)
                    await self._store.remove([hold.key])

    async def _renew(self) -> None:
        now = asyncio.get_running_loop().time()
        if all(hold.due > now for hold in self._holds.values()):
            return
        due = [
            hold
            for hold in self._holds.values()
            if hold.due <= now + min(_EARLY, hold.seconds / 6) and hold.placed
        ]
        lost = await self._store.renew((hold.key, hold.seconds, hold.lease) for hold in due)
        for hold in due:
            if (hold.key, hold.lease) not in lost:
                hold.renewed()
        for hold in due:
            async with hold.lock:
                if (hold.key, hold.lease) in lost and self._holds.get(hold.key) is hold:
                    await self._place(hold, hold.value, hold.seconds)
                    hold.renewed()
                    logger.warning("etcd: %s was lost and is registered again", hold.key)
