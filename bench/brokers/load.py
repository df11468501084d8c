"""load: the events every peer publishes and handles, and the loop that times them."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import msgspec
import uvloop

TOPIC = f"bench-events-{os.getpid()}"  # what a peer before has left is no business of the next
GROUP = f"bench-group-{os.getpid()}"
IN_FLIGHT = (1, 64)
WAITING = 4  # events on their way for each publication in flight, when there is more than one
WARM_UP = 0.5  # seconds
LOST = 10.0  # seconds after which an event that was not handled is lost
TEXT = "x" * 69

Publish = Callable[[int], Awaitable[None]]
Take = Callable[[int], None]
Connect = Callable[[str, Take], AbstractAsyncContextManager[Publish]]


class Event(msgspec.Struct):
    """What is published: 100 bytes of JSON."""

    number: int
    text: str


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Event).decode


def event(number: int) -> Event:
    """Makes an event; all numbers have ten digits, so that all events have the same size."""
    return Event(1_000_000_000 + number, TEXT)


def body(number: int) -> bytes:
    """Encodes an event, for peers that move bytes."""
    return _encode(event(number))


def number(data: bytes) -> int:
    """Decodes an event and returns its number."""
    return _decode(data).number - 1_000_000_000


class Window:
    """Publishes so many events at a time and waits when too many are on their way."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self._started: dict[int, float] = {}
        self._next = 0
        self._limit = 1
        self._room = asyncio.Event()
        self._room.set()

    def take(self, number: int) -> None:
        """Notes that an event was handled; the second time it came does not count."""
        begun = self._started.pop(number, None)
        if begun is not None:
            self.latencies.append(time.perf_counter() - begun)
            if len(self._started) * 2 <= self._limit:
                self._room.set()

    async def run(self, publish: Publish, in_flight: int, seconds: float) -> None:
        """Publishes for a while, and returns when all events were handled."""
        self._limit = 1 if in_flight == 1 else in_flight * WAITING
        until = time.perf_counter() + seconds
        async with asyncio.timeout(seconds + LOST):
            async with asyncio.TaskGroup() as group:
                for _ in range(in_flight):
                    group.create_task(self._publish(publish, until))
            while self._started:
                self._room.clear()
                self._limit = 0
                await self._room.wait()
            self._room.set()

    async def _publish(self, publish: Publish, until: float) -> None:
        started = self._started
        while (now := time.perf_counter()) < until:
            if len(started) >= self._limit:
                self._room.clear()  # nobody publishes until half of them are handled
            if not self._room.is_set():
                await self._room.wait()
                continue
            number = self._next
            self._next += 1
            started[number] = now
            await publish(number)


def main(connect: Connect) -> None:
    """Runs a peer as `ADDRESS SECONDS` says and prints a line of JSON."""
    *_, address, seconds = sys.argv
    print(json.dumps(uvloop.run(_measure(connect, address, float(seconds)))), flush=True)


async def _measure(
    connect: Connect, address: str, seconds: float
) -> dict[str, dict[str, float | None]]:
    cells: dict[str, dict[str, float | None]] = {}
    window = Window()
    async with connect(address, window.take) as publish:
        for in_flight in IN_FLIGHT:
            await window.run(publish, in_flight, WARM_UP)
            window.latencies.clear()
            wall, cpu = time.perf_counter(), time.process_time()
            await window.run(publish, in_flight, seconds)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            latencies = sorted(window.latencies)
            window.latencies.clear()
            count = len(latencies)
            cells[f"c{in_flight}"] = {
                "rps": count / wall,
                "p50_us": latencies[count // 2] * 1e6,
                "p99_us": latencies[count * 99 // 100] * 1e6,
                "cpu_us": cpu / count * 1e6,
            }
    return cells
