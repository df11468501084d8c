"""What the tests of etcd's registries have in common."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from shoal.registry import Change, Node, Record, Registry

DEADLINE = 30.0


def make_record(name: str = "greeter", id: str = "a", **more: str) -> Record:
    address = more.pop("address", "10.0.0.1:8080")
    return Record(name, more.pop("version", "latest"), (Node(id, address, {"protocol": "mucp"}),))


async def ids(registry: Registry, name: str = "greeter") -> list[str]:
    """Return the ids of all nodes, sorted."""
    return sorted(node.id for record in await registry.get(name) for node in record.nodes)


async def becomes(look: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Look until it is as wanted; while etcd cannot be asked, go on."""
    seen: object = None
    try:
        async with asyncio.timeout(DEADLINE):
            while seen != wanted:
                try:
                    seen = await look()
                except Exception as error:
                    seen = error
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"it is {seen!r} and not {wanted!r}") from None


class Watcher:
    """What a watch has told so far: the changes, and the nodes that they leave."""

    def __init__(self) -> None:
        self.changes: list[Change] = []
        self.nodes: dict[str, str] = {}

    async def read(self, changes: AsyncIterator[Change]) -> None:
        async for change in changes:
            self.changes.append(change)
            for node in change.record.nodes:
                if change.action == "delete":
                    self.nodes.pop(node.id, None)  # it may be older than the watch
                else:
                    self.nodes[node.id] = node.address

    async def becomes(self, wanted: set[str]) -> None:
        async def look() -> set[str]:
            return set(self.nodes)

        await becomes(look, wanted)


@asynccontextmanager
async def watching(registry: Registry, name: str | None = "greeter") -> AsyncIterator[Watcher]:
    """Watch until the block ends, from its begin on."""
    watcher = Watcher()
    task = asyncio.ensure_future(watcher.read(registry.watch(name)))
    try:
        await asyncio.sleep(0)
        await registry.get("nobody")  # waits until the watch has begun
        yield watcher
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
