"""Module _registry has the records the suite of registries registers, and how it watches."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable

from shoal.registry import Change, Endpoint, Node, Record, Registry, Value

VALUE = Value("Req", "Req", (Value("name", "string"), Value("sub", "Sub", (Value("N", "int64"),))))
ENDPOINTS = (
    Endpoint("Greeter.Hello", VALUE, Value("Rsp", "Rsp"), {"description": 'says "Grüße" <&>'}),
    Endpoint("Greeter.Watch", None, Value("Stream", "Stream"), {"stream": "true"}),
    Endpoint("Mailer.Greeted", VALUE, None, {"topic": "greeted", "subscriber": "true"}),
)


class Watching:
    """A watch whose next step is always under way, as it is in a client's cache."""

    def __init__(self, changes: AsyncIterator[Change], deadline: float) -> None:
        self._changes = changes
        self._deadline = deadline
        self._step: asyncio.Task[Change | None] = asyncio.ensure_future(step(changes))

    async def first(self, wanted: Callable[[Change], bool]) -> Change:
        """Return the first change from here on that is wanted."""
        async with asyncio.timeout(self._deadline):
            while True:
                change = await self._step
                assert change is not None, "the watch has ended"
                self._step = asyncio.ensure_future(step(self._changes))
                if wanted(change):
                    return change

    async def rest(self) -> list[Change]:
        """Return all changes until the watch ends by itself."""
        rest = []
        async with asyncio.timeout(self._deadline):
            while (change := await self._step) is not None:
                rest.append(change)
                self._step = asyncio.ensure_future(step(self._changes))
        return rest

    async def close(self) -> None:
        """Close the iterator."""
        self._step.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._step
        await end(self._changes)


async def step(changes: AsyncIterator[Change]) -> Change | None:
    """Return the next change, None at the end."""
    return await anext(changes, None)


async def end(changes: AsyncIterator[Change]) -> None:
    """Close the iterator of a watch."""
    close = getattr(changes, "aclose", None)
    if close is not None:
        await close()


def unique() -> str:
    """Return a service name nobody else has, so that suites can share a backend."""
    return f"suite-{uuid.uuid4().hex[:12]}"


def make_record(
    name: str,
    id: str = "a",
    *,
    version: str = "latest",
    address: str = "10.0.0.1:8080",
    node: dict[str, str] | None = None,
    endpoints: tuple[Endpoint, ...] = (),
    metadata: dict[str, str] | None = None,
) -> Record:
    """Return a record with one node."""
    nodes = (
        Node(id, address, {"protocol": "mucp", "transport": "http"} if node is None else node),
    )
    return Record(name, version, nodes, endpoints, metadata or {})


async def node_ids(registry: Registry, name: str) -> dict[str, list[str]]:
    """Return the ids of the nodes of each version, sorted."""
    found = {
        record.version: sorted(node.id for node in record.nodes)
        for record in await registry.get(name)
    }
    return {version: ids for version, ids in found.items() if ids}


async def sorted_nodes(registry: Registry, name: str) -> list[Node]:
    """Return all nodes of a service, sorted by id."""
    nodes = [node for record in await registry.get(name) for node in record.nodes]
    return sorted(nodes, key=lambda node: node.id)


async def named(registry: Registry, name: str) -> bool:
    """Return whether a service is listed."""
    return name in await registry.services()
