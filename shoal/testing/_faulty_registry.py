"""Module _faulty_registry is a registry that cannot always be asked, and may be wrong."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from shoal.errors import Unavailable
from shoal.registry import Change, Record, Registry
from shoal.testing.faults import HOLD, ID, Fate, Faults

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
        late: Change | None = None
        changes = self._inner.watch(name)
        arrivals: deque[asyncio.Task[Change]] = deque()
        try:
            while True:
                change = await self._next(changes, arrivals, HOLD if late else None)
                if change is not None:
                    fate = self._changes.next()
                    await asyncio.sleep(fate.delay)
                    if fate.drop:
                        raise Unavailable(f"{self.place} missed a change", id=ID)
                    if fate.reorder and late is None:
                        late = change
                        continue
                    yield change
                    if fate.duplicate:
                        yield change
                if late is not None:
                    yield late
                    late = None
        finally:
            for arrival in arrivals:
                arrival.cancel()
                await asyncio.gather(arrival, return_exceptions=True)
            if (end := getattr(changes, "aclose", None)) is not None:
                await end()

    async def close(self) -> None:
        await self._inner.close()

    async def _next(
        self,
        changes: AsyncIterator[Change],
        arrivals: deque[asyncio.Task[Change]],
        timeout: float | None,
    ) -> Change | None:
        """Return the next change, None if none comes in time; raises once nothing can come."""
        loop = asyncio.get_running_loop()
        if not arrivals:
            arrivals.append(loop.create_task(_first(changes)))
        arrival = arrivals[0]
        while True:
            news = loop.create_task(self._faults.changed())
            try:
                done, _ = await asyncio.wait(
                    {arrival, news}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
                )
            finally:
                news.cancel()
            self._faults.check(self.place, PLACE)
            if arrival in done:
                return arrivals.popleft().result()
            if not done:
                return None

    async def _ask(self) -> Fate:
        fate = self._questions.next()
        await asyncio.sleep(fate.delay)
        self._faults.check(self.place, PLACE)
        return fate

    def _answer(self, fate: Fate) -> None:
        if fate.drop:
            raise Unavailable(f"{PLACE} has not answered {self.place}", id=ID)


async def _first(changes: AsyncIterator[Change]) -> Change:
    try:
        return await anext(changes)
    except StopAsyncIteration:
        raise Unavailable("the watch has ended", id=ID) from None


def _wrong(record: Record, dice: float) -> Record:
    """Return a record with the address of one node replaced by that of nobody."""
    nodes = list(record.nodes)
    chosen = int(dice * len(nodes))
    nodes[chosen] = replace(nodes[chosen], address=NOWHERE)
    return replace(record, nodes=tuple(nodes))
