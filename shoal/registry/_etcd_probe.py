"""Module _etcd_probe makes sure that a member is alive, for all who want to know at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

FRESH = 4.0  # seconds for which an answer stands


class Probe:
    """Asks a member once, however many watches wait for what it says."""

    def __init__(self, ask: Callable[[str], Awaitable[object]]) -> None:
        self._ask = ask
        self._answered: dict[str, float] = {}
        self._turn = asyncio.Lock()

    async def __call__(self, member: str) -> None:
        """Raise what asking raises, unless the member has answered a moment ago."""
        loop = asyncio.get_running_loop()
        async with self._turn:
            if loop.time() - self._answered.get(member, -FRESH) < FRESH:
                return
            await self._ask(member)
            self._answered[member] = loop.time()
