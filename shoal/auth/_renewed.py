"""Module _renewed is a value from elsewhere that is fetched again before it is too old."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from shoal.errors import Unavailable

logger = logging.getLogger(__name__)

PAUSE = 5.0  # seconds without another attempt after one that failed, or that was asked for

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fetched(Generic[T]):
    """A value with the seconds after which it should be fetched again, and is of no more use."""

    value: T = field(repr=False)
    renew: float
    expire: float


class Renewed(Generic[T]):
    """Fetches when somebody needs it: one fetches, the others use what is there, or wait.

    What was fetched stays in use when it cannot be renewed, until it expires.
    """

    def __init__(self, what: str, fetch: Callable[[], Awaitable[Fetched[T]]]) -> None:
        self._what = what
        self._fetch = fetch
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        state = "not fetched" if self._loop is None or self._fetched is None else "fetched"
        return f"<{self._what}, {state}>"

    def _bind(self) -> float:
        loop = asyncio.get_running_loop()
        if loop is not self._loop:  # another loop has another time
            self._loop = loop
            self._lock = asyncio.Lock()
            self._fetched: Fetched[T] | None = None
            self._renew = self._expire = self._tried = float("-inf")
        return loop.time()

    async def current(self) -> T:
        """Return the value. Raises Unavailable if there is none and it cannot be fetched."""
        now = self._bind()
        fetched = self._fetched
        if (
            fetched is not None
            and now < self._expire
            and (now < self._renew or self._lock.locked())
        ):
            return fetched.value
        async with self._lock:
            now = self._bind()
            if self._fetched is None or now >= self._renew:
                await self._try(now)
            assert self._fetched is not None
            return self._fetched.value

    async def newer(self) -> T:
        """Return the value, fetched again unless that was tried just now."""
        now = self._bind()
        if now < self._tried + PAUSE and self._fetched is not None:
            return self._fetched.value
        seen = self._fetched
        async with self._lock:
            now = self._bind()
            if self._fetched is seen:
                await self._try(now)
            assert self._fetched is not None
            return self._fetched.value

    async def _try(self, now: float) -> None:
        self._tried = now
        try:
            fetched = await self._fetch()
        except Exception as error:
            # Its text is not ours, and may hold what is secret.
            why = str(error) if isinstance(error, Unavailable) else type(error).__name__
            if self._fetched is None or now >= self._expire:
                self._fetched = None
                failure = Unavailable(f"{self._what} cannot be fetched: {why}", id="shoal.auth")
                failure.unsent = True
                raise failure from error
            logger.warning("%s cannot be renewed, the old stays in use: %s", self._what, why)
            self._renew = now + PAUSE
        else:
            self._fetched = fetched
            self._renew, self._expire = now + fetched.renew, now + fetched.expire
