"""lookups: times one registry, which holds many services: `NAME ADDRESS SECONDS`."""

from __future__ import annotations

import asyncio
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import uvloop

from bench.registries import ALL, SIZES, address, name
from shoal import plugins
from shoal.registry import Endpoint, Node, Record, Registry, Value

AT_A_TIME = 16  # registrations
TTL = 3600.0
SETTLE, QUIET = 60.0, 0.05  # seconds until it is quiet, at most; share of the CPU that is quiet
CHANGES, WATCHED = 100, 10.0  # changes at most, seconds
IDLE = 3.0  # seconds
LATE = 10.0  # seconds after which a change that was not seen is lost

Change = Callable[[Record], Awaitable[None]]

ENDPOINT = Endpoint(
    "Greeter.Hello",
    Value("HelloRequest", "HelloRequest", (Value("name", "string"),)),
    Value("HelloReply", "HelloReply", (Value("greeting", "string"),)),
)


def records(services: int, nodes: int) -> list[Record]:
    """Makes up the services, with nodes and endpoint as a server registers them."""
    metadata = {"protocol": "mucp", "transport": "http", "registry": "bench", "server": "shoal"}
    return [
        Record(
            name(service),
            "1.0.0",
            tuple(
                Node(f"{name(service)}-{node}", address(service, node), metadata)
                for node in range(nodes)
            ),
            (ENDPOINT,),
        )
        for service in range(services)
    ]


@contextmanager
def written(services: list[Record]) -> Iterator[str]:
    """Yields the path of a list for the static registry."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        for one in services:
            print(one.name, ",".join(node.address for node in one.nodes), sep="=", file=file)
        file.flush()
        yield file.name


@asynccontextmanager
async def filled(
    kind: str, where: str, services: list[Record]
) -> AsyncIterator[tuple[Registry, Change | None]]:
    """Yields a registry to ask, and how to change a record, if others tell it what there is."""
    make: Any = plugins.load("registry", kind)
    stack = ExitStack()
    writers: list[Registry] = []
    if kind == "memory":
        reader: Registry = make()
        writers = [reader]
    elif kind == "static":
        reader = make(stack.enter_context(written(services)))
    elif kind == "dns":
        reader = make(f"{where}/example?tcp=1")
    else:
        # Every service of mdns has a socket of its own, as if each were a process.
        writers = [make(where) for _ in range(len(services) if kind == "mdns" else 1)]
        reader = make(where)

    limit = asyncio.Semaphore(AT_A_TIME)

    async def register(record: Record, number: int = 0) -> None:
        async with limit:
            await writers[number % len(writers)].register(record, ttl=TTL)

    if writers:
        await asyncio.gather(*(register(one, number) for number, one in enumerate(services)))
    try:
        yield reader, register if writers else None
    finally:
        await asyncio.gather(*(one.close() for one in {*writers, reader}))
        stack.close()


async def look_up(
    registry: Registry, services: list[Record], seconds: float
) -> tuple[list[float], int]:
    """Looks services up one after the other; returns how long each took, and how many it missed.

    By multicast and NATS nobody knows how many will answer: who is late is missed.
    """
    took: list[float] = []
    missed = 0
    until = time.perf_counter() + seconds
    while not took or time.perf_counter() < until:
        wanted = random.choice(services)
        begun = time.perf_counter()
        found = await registry.get(wanted.name)
        took.append(time.perf_counter() - begun)
        nodes = sum(len(one.nodes) for one in found)
        missed += nodes != len(wanted.nodes)
    return took, missed


async def watch(registry: Registry, service: Record, change: Change) -> list[float]:
    """Changes one service again and again; returns how long it took to be told."""
    seen: asyncio.Queue[float] = asyncio.Queue()

    async def follow() -> None:
        async for one in registry.watch(service.name):
            for node in one.record.nodes:
                if "at" in node.metadata:
                    seen.put_nowait(float(node.metadata["at"]))

    task = asyncio.create_task(follow())
    await asyncio.sleep(1)  # until it watches
    took: list[float] = []
    try:
        until = time.perf_counter() + WATCHED
        while len(took) < CHANGES and time.perf_counter() < until:
            node = service.nodes[0]
            at = time.perf_counter()
            node = replace(node, metadata={**node.metadata, "at": repr(at)})
            await change(replace(service, nodes=(node,)))
            async with asyncio.timeout(LATE):
                while await seen.get() != at:
                    pass  # told before
            took.append(time.perf_counter() - at)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return took


async def settle() -> None:
    """Waits until what registering has set off is over: all of mdns is in this one process."""
    async with asyncio.timeout(SETTLE):
        cpu = -1.0
        while time.process_time() - cpu > QUIET:
            cpu = time.process_time()
            await asyncio.sleep(1)


def percentiles(what: str, took: Iterable[float]) -> dict[str, float]:
    """Returns the median and the 99th percentile in microseconds."""
    ordered = sorted(took)
    return {
        f"{what}_p50_us": ordered[len(ordered) // 2] * 1e6,
        f"{what}_p99_us": ordered[len(ordered) * 99 // 100] * 1e6,
    }


async def measure(kind: str, where: str, seconds: float) -> dict[str, float | None]:
    """Returns the figures of a registry."""
    services = records(*SIZES.get(kind, ALL))
    begun = time.perf_counter()
    async with filled(kind, where, services) as (registry, change):
        result: dict[str, float | None] = {"fill_s": time.perf_counter() - begun}
        await settle()
        took, missed = await look_up(registry, services, seconds)
        result |= percentiles("lookup", took) | {"missed": missed / len(took)}
        result["watch_p50_us"] = result["watch_p99_us"] = None
        if change is not None:
            result |= percentiles("watch", await watch(registry, services[0], change))
        await settle()
        cpu = time.process_time()
        await asyncio.sleep(IDLE)
        result["idle_percent"] = (time.process_time() - cpu) / IDLE * 100
    return result


if __name__ == "__main__":
    _, kind, where, seconds = sys.argv
    print(json.dumps(uvloop.run(measure(kind, where, float(seconds)))), flush=True)
