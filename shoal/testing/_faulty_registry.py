"""Module _faulty_registry is a registry that cannot always be asked, and may be wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from shoal.errors import Unavailable
from shoal.registry import Change, Record, Registry
from shoal.testing.faults import ID, Fate, Faults

PLACE = "registry"
NOWHERE = "127.0.0.1:1"


class FaultyRegistry(Registry):
    """Asks another registry."""

    def __init__(self, inner: Registry, faults: Faults, place: str) -> None:
        self.place = place
        self._inner = inner
        self._faults = faults
        self._questions = faults.flow(f"{place} asks {PLACE}")
        self._changes = faults.flow(f"{place} watches {PLACE}")
        self._closings = 0

    def __repr__(self) -> str:
        return f"FaultyRegistry({self.place!r}, {self._inner!r})"

    async def register(self, record: Record, *, ttl: float | None = None) -> None:
        fate = await self._ask()
        if not fate.drop or fate.dice < 0.5:
            await self._inner.register(record, ttl=ttl)
        self._answer(fate)

    async def deregister(self, record: Record) -> None:
        fate = await self._ask()
        if not fate.drop or fate.dice < 0.5:
            await self._inner.deregister(record)
        self._answer(fate)

    async def get(self, name: str) -> Sequence[Record]:
        fate = await self._ask()
        self._answer(fate)
        found = await self._inner.get(name)
        return [_wrong(record, fate.dice) for record in found] if fate.corrupt else found

    async def services(self) -> Sequence[str]:
        self._answer(await self._ask())
        return await self._inner.services()

    async def watch(self, name: str | None = None) -> AsyncIterator[Change]:
        self._faults.check(self.place, PLACE)
        changes = self._inner.watch(name)
        try:
            while (change := await self._next(changes)) is not None:
                fate = self._changes.next()
                if fate.delay:
                    await asyncio.sleep(fate.delay)
                if fate.drop:
                    raise Unavailable(f"{self.place} missed a change", id=ID)
                yield change
                if fate.duplicate:
                    yield change
        finally:
            if (end := getattr(changes, "aclose", None)) is not None:
                await end()

    async def close(self) -> None:
        await self._inner.close()

    async def _next(self, changes: AsyncIterator[Change]) -> Change | None:
        """Return the next change, None at the end; raises once nothing can come."""
        # Not in a task of its own: a watch sees what comes from its very first step on.
        try:
            async with asyncio.timeout(None) as limit:
                news = self._faults.news()

                def look(done: asyncio.Future[None]) -> None:
                    nonlocal news
                    if done.cancelled():
                        return
                    if self._faults.reaches(self.place, PLACE):
                        news = self._faults.news()
                        news.add_done_callback(look)
                    else:
                        limit.reschedule(0.0)

                news.add_done_callback(look)
                try:
                    return await anext(changes)
                except StopAsyncIteration:
                    return None
                finally:
                    news.remove_done_callback(look)
                    news.cancel()
        except TimeoutError:
            self._faults.check(self.place, PLACE)
            raise

    async def _ask(self) -> Fate:
        fate = self._questions.next()
        if fate.delay:
            await asyncio.sleep(fate.delay)
        self._faults.check(self.place, PLACE)
        return fate

    def _answer(self, fate: Fate) -> None:
        if fate.drop:
            raise Unavailable(f"{PLACE} has not answered {self.place}", id=ID)


def _wrong(record: Record, dice: float) -> Record:
    """Return a record with the address of one node replaced by that of nobody."""
    nodes = list(record.nodes)
    chosen = int(dice * len(nodes))
    nodes[chosen] = replace(nodes[chosen], address=NOWHERE)
    return replace(record, nodes=tuple(nodes))
