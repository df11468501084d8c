"""selectors: times what a selector does, by how many nodes there are: `NAME SECONDS`."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import uvloop

from bench.registries import ALL
from bench.registries.lookups import records
from shoal import context, plugins
from shoal.context import Context, Metadata
from shoal.registry import Change, Record, Registry
from shoal.registry._feed import Feed
from shoal.registry.memory import MemoryRegistry
from shoal.selector import Next, Selector

FEW, MANY = 10, 10_000
CHOICES = 2000  # in a row
UPDATES = 50
KEYS = [f"key-{number}" for number in range(512)]


class OneService(Registry):
    """Knows one service, and tells of changes; so what is timed is the selector's own work."""

    def __init__(self, record: Record) -> None:
        self.record = record
        self.feed = Feed()

    async def register(self, record: Record, *, ttl: float | None = None) -> None:
        """Tell watches of changed nodes."""
        self.feed.put(Change("update", record))

    async def deregister(self, record: Record) -> None:
        """Do nothing."""

    async def get(self, name: str) -> Sequence[Record]:
        return [self.record]

    async def services(self) -> Sequence[str]:
        return [self.record.name]

    async def watch(self, name: str | None = None) -> AsyncIterator[Change]:
        while change := await self.feed.next():
            yield change

    async def close(self) -> None:
        self.feed.end()


def make(kind: str, registry: Registry) -> Selector:
    """Makes a selector."""
    selector: Selector = plugins.load("selector", kind)(registry)
    return selector


def cost(choose: Next, mark: Callable[..., None], name: str, metadata: Metadata | None) -> float:
    """Returns the microseconds of CPU one choice takes, with the note of how the call went."""
    begun = time.process_time()
    for number in range(CHOICES):
        if metadata is not None:
            metadata["Hash-Key"] = KEYS[number % len(KEYS)]
        node = choose()
        mark(name, node, None, 0.001)
    return (time.process_time() - begun) / CHOICES * 1e6


async def measure(kind: str, seconds: float) -> dict[str, float]:
    """Returns the figures of a selector."""
    few, many = records(1, FEW)[0], records(1, MANY)[0]
    result = await choices(kind, few, many, seconds)
    result |= await updates(kind, many)
    return result


async def choices(kind: str, few: Record, many: Record, seconds: float) -> dict[str, float]:
    """Times choices among few and among many nodes, in turn."""
    costs: dict[str, list[float]] = {"few": [], "many": []}
    metadata = Metadata() if kind == "consistent_hash" else None
    if metadata is not None:
        context.current.set(Context(metadata, None, metadata))
    selectors = {
        "few": make(kind, OneService(few)),
        "many": make(kind, OneService(many)),
    }
    chosen = {which: await one.select(few.name) for which, one in selectors.items()}
    until = time.perf_counter() + seconds
    while not costs["many"] or time.perf_counter() < until:
        for which, one in selectors.items():
            costs[which].append(cost(chosen[which], one.mark, few.name, metadata))
    await asyncio.gather(*(one.close() for one in selectors.values()))
    return {
        f"choice_{FEW}_us": min(costs["few"]),
        f"choice_{MANY}_us": min(costs["many"]),
        # The least of each: whoever else uses the machine pushes many nodes out of its caches.
        "choice_ratio": min(costs["many"]) / min(costs["few"]),
    }


async def updates(kind: str, record: Record) -> dict[str, float]:
    """Times loading a service, and changes of one of its nodes, each with the next choice."""
    loads, changes = [], []
    for _ in range(3):
        registry = OneService(record)
        selector = make(kind, registry)
        begun = time.process_time()
        choose = await selector.select(record.name)
        selector.mark(record.name, choose(), None, 0.001)
        loads.append(time.process_time() - begun)
        for number in range(UPDATES):
            node = replace(record.nodes[number], metadata={"changed": str(number)})
            one = replace(record, nodes=(node,))
            begun = time.process_time()
            await registry.register(one)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            selector.mark(record.name, choose(), None, 0.001)
            changes.append(time.process_time() - begun)
        await selector.close()
    return {
        "load_ms": min(loads) * 1e3,
        "update_us": median(changes) * 1e6,
        "update_ratio": median(changes) / min(loads),
    }


async def memory(kind: str) -> float:
    """Returns the MiB that a selector's knowledge of all services takes."""
    registry = MemoryRegistry()
    for record in records(*ALL):
        await registry.register(record)
    selector = make(kind, registry)
    gc.collect()
    before = resident()
    for record in records(*ALL):
        await selector.select(record.name)
    gc.collect()
    after = resident()
    await selector.close()
    return (after - before) / 2**20


def resident() -> int:
    """Returns the bytes of memory this process has; 0 where /proc does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGESIZE")


async def main(kind: str, seconds: float) -> dict[str, Any]:
    """Returns all figures."""
    return {**await measure(kind, seconds), "cache_mib": await memory(kind)}


if __name__ == "__main__":
    print(json.dumps(uvloop.run(main(sys.argv[1], float(sys.argv[2])))), flush=True)
