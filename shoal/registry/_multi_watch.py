"""Module _multi_watch follows a service in several registries at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import replace

from shoal.errors import Error, Unavailable
from shoal.registry import Change, Node
from shoal.registry._feed import Feed
from shoal.registry._multi_parts import Part, all_failed

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0


class Watch:
    """Tells what any part tells; a node is gone when no part has it any more.

    A part that fails is left out. When it is back, changes may have been missed, and the watch
    ends with Unavailable, as it does when no part is left.
    """

    def __init__(self, parts: Sequence[Part], name: str | None, timeout: float) -> None:
        self.name = name
        self.feed = Feed()
        self.began = asyncio.Event()
        """Set when every part has been asked to tell changes."""
        self._parts = parts
        self._timeout = timeout
        self._waiting = len(parts)
        self._problems: dict[Part, Exception] = {}
        self._ended: set[Part] = set()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to watch every part."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._follow(part)) for part in self._parts]

    async def stop(self) -> None:
        """End it and what it has begun."""
        self.feed.end()
        self.began.set()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _follow(self, part: Part) -> None:
        self._waiting -= 1
        if not self._waiting:
            self.began.set()
        try:
            async with aclosing(_closable(part.registry.watch(self.name))) as changes:
                async for change in changes:
                    await self._tell(part, change)
            self._ended.add(part)
        except Error as error:
            part.note(error)
            self._problems[part] = error
        if len(self._ended) == len(self._parts):
            self.feed.end()
        elif len(self._ended) + len(self._problems) == len(self._parts):
            self.feed.end(all_failed(list(self._problems.values())))
        elif part in self._problems:
            await self._return_of(part)
            self.feed.end(Unavailable(f"the registry {part.name} is back: changes were missed"))

    async def _tell(self, part: Part, change: Change) -> None:
        part.note(None)
        if change.action != "delete":
            self.feed.put(change)
            return
        elsewhere = await self._elsewhere(part, change.record.name)
        gone = tuple(node for node in change.record.nodes if node.id not in elsewhere)
        if gone:
            self.feed.put(replace(change, record=replace(change.record, nodes=gone)))

    async def _elsewhere(self, part: Part, name: str) -> dict[str, Node]:
        """Return the nodes of a service that other parts know."""
        others = [one for one in self._parts if one is not part]
        answers = await asyncio.gather(*(one.get(name, self._timeout) for one in others))
        return {node.id: node for found, _ in answers for one in found for node in one.nodes}

    async def _return_of(self, part: Part) -> None:
        """Wait until a part answers again."""
        name, pause = self.name, _FIRST_PAUSE
        while True:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            try:
                if name is None:
                    await part.do(lambda registry: registry.services(), self._timeout)
                else:
                    await part.do(lambda registry: registry.get(name), self._timeout)
                return
            except Error:
                continue


async def _closable(changes: AsyncIterator[Change]) -> AsyncGenerator[Change, None]:
    """Yield the changes; the contract's iterators need not have a way to close them."""
    try:
        async for change in changes:
            yield change
    finally:
        if (close := getattr(changes, "aclose", None)) is not None:
            await close()
