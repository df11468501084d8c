"""Module _registration keeps a record in the registry for as long as its owner serves."""

from __future__ import annotations

import asyncio
import logging
import random

from shoal.registry import Record, Registry

logger = logging.getLogger(__name__)

ATTEMPTS = 3
TIMEOUT = 10.0  # seconds for one question to the registry


class Registration:
    """A record that is registered again every `interval` seconds, and after a failure sooner."""

    def __init__(self, registry: Registry, record: Record, *, ttl: float, interval: float) -> None:
        self._registry = registry
        self._record = record
        self._ttl = ttl
        self._interval = interval
        self._task: asyncio.Task[None] | None = None
        self._asked = asyncio.Event()
        self.error: Exception | None = None
        """Why the registry may not know the record now, None if it does."""

    def renew(self) -> None:
        """Register again at once: somebody has reason to think that the registry forgot."""
        self._asked.set()

    async def start(self) -> None:
        """Register, trying a few times, and go on doing so. Raises what the registry raises."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                await self._register()
                break
            except Exception:
                if attempt == ATTEMPTS:
                    raise
                await asyncio.sleep(0.1 * 2**attempt)
        if self._interval > 0:
            self._task = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        """Deregister. A registry that cannot be reached is logged: the record's TTL ends it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._registry.deregister(self._record)
        except Exception as error:
            logger.warning("%s could not be deregistered: %s", self._record.name, error)

    async def _register(self) -> None:
        async with asyncio.timeout(TIMEOUT):
            await self._registry.register(self._record, ttl=self._ttl or None)

    async def _keep(self) -> None:
        while True:
            # Jitter, so that what started together does not renew together for ever; after a
            # failure soon again, while the old registration may still stand.
            pause = self._interval if self.error is None else min(self._interval, 5.0)
            try:
                async with asyncio.timeout(pause * random.uniform(0.9, 1.0)):
                    await self._asked.wait()
            except TimeoutError:
                pass
            self._asked.clear()
            try:
                await self._register()
            except Exception as error:
                self.error = error
                logger.warning("%s could not be registered again: %s", self._record.name, error)
            else:
                if self.error is not None:
                    logger.info("%s is registered again", self._record.name)
                self.error = None
