"""Module _discovery looks a record up as others do, and tells whether they find it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from shoal.errors import Unavailable
from shoal.plugins import plugin_name
from shoal.registry import Record, Registry

logger = logging.getLogger(__name__)

FIRST = 1.0  # seconds until the first look-up
AGAIN = 2.0  # between two of them while the record is not found
GRACE = 10.0  # before that is called a failure: registries need not know at once
TIMEOUT = 10.0  # of one look-up


class Discovery:
    """Looks for a registered node every `interval` seconds; `renew` is called when it is missing.

    Registries that tell nobody of what is registered (`tells_others` is False) are not asked.
    """

    def __init__(
        self, registry: Registry, record: Record, *, interval: float, renew: Callable[[], None]
    ) -> None:
        self._registry = registry
        self._record = record
        self._interval = interval
        self._renew = renew
        self._task: asyncio.Task[None] | None = None
        self.error: Exception | None = None
        """Why others cannot find the node, None if they can or it is too early to say."""

    def start(self) -> None:
        """Begin to look."""
        if getattr(self._registry, "tells_others", True):
            self._task = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        pause = min(FIRST, self._interval)
        missed: float | None = None  # since when
        while True:
            await asyncio.sleep(pause * random.uniform(0.9, 1.0))
            problem = await self._look()
            if problem is None:
                if self.error is not None:
                    logger.info("%s is found in the registry again", self._record.name)
                pause, missed, self.error = self._interval, None, None
                continue
            pause = min(AGAIN, self._interval)
            if missed is None:
                missed = loop.time()
            if loop.time() - missed >= GRACE:
                if self.error is None:
                    logger.warning("%s", problem)
                self.error = problem

    async def _look(self) -> Exception | None:
        """Return what keeps others from finding the node."""
        name, (node, *_) = self._record.name, self._record.nodes
        kind = plugin_name(self._registry)
        try:
            async with asyncio.timeout(TIMEOUT):
                records = await self._registry.get(name)
        except TimeoutError:
            return Unavailable(f"{kind} did not answer a look-up within {TIMEOUT:g} s")
        except Exception as error:
            return error
        found = {one.id: one.address for record in records for one in record.nodes}
        if node.id not in found:
            self._renew()
            return Unavailable(f"a look-up of {name} in {kind} does not find {node.id}")
        # A registry may resolve the host to what others reach, as mdns does.
        if found[node.id].rpartition(":")[2] != node.address.rpartition(":")[2]:
            self._renew()
            return Unavailable(
                f"{node.id} is found at {found[node.id]} instead of {node.address}:"
                " another process registers the same id"
            )
        return None
