"""load: the call every peer makes, and the loops that serve and time it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec
import uvloop

NAME = "John Smith"
GREETING = f"Hello {NAME}"
WARM_UP = 0.5  # seconds: connections open, caches fill, nothing is counted

Call = Callable[[], Awaitable[str]]
Serve = Callable[[], AbstractAsyncContextManager[int]]
Connect = Callable[[int, int], AbstractAsyncContextManager[Call]]
Run = Callable[[Coroutine[Any, Any, None]], None]


class HelloRequest(msgspec.Struct):
    """What is asked: ten characters."""

    name: str


class HelloReply(msgspec.Struct):
    """What is answered."""

    greeting: str


encode = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(HelloRequest).decode
decode_reply = msgspec.json.Decoder(HelloReply).decode


def request_body() -> bytes:
    """Encodes the request, anew for every call."""
    return encode(HelloRequest(NAME))


def reply_body(request: bytes) -> bytes:
    """Answers a request, from JSON to JSON."""
    return encode(HelloReply(f"Hello {decode_request(request).name}"))


def main(serve: Serve, connect: Connect, run: Run = uvloop.run) -> None:
    """Runs an asyncio peer as the command line says.

    `serve()` yields the port it listens on; `connect(port, concurrency)` yields the call to make.
    """

    async def server() -> None:
        async with serve() as port:
            announce(port)
            await asyncio.Event().wait()

    async def client(port: int, concurrency: int, seconds: float) -> None:
        async with connect(port, concurrency) as call:
            check(await call())
            warm = await _calls(call, concurrency, WARM_UP)
            watch = Stopwatch()
            watch.report(await _calls(call, concurrency, seconds), uncounted=len(warm) + 1)

    match sys.argv[1:]:
        case ["server"]:
            run(server())
        case ["client", port, concurrency, seconds]:
            run(client(int(port), int(concurrency), float(seconds)))
        case _:
            raise SystemExit("usage: server | client PORT CONCURRENCY SECONDS")


def main_threads(serve: Callable[[], None], connect: Callable[[int], Callable[[], str]]) -> None:
    """Runs a peer of blocking calls: one thread and one connection for each call in flight.

    `serve()` announces its port and does not return; `connect(port)` opens one connection.
    """

    def client(port: int, concurrency: int, seconds: float) -> None:
        calls = [connect(port) for _ in range(concurrency)]
        for call in calls:
            check(call())
        with ThreadPoolExecutor(concurrency) as pool:
            warm = _thread_calls(pool, calls, WARM_UP)
            watch = Stopwatch()
            latencies = _thread_calls(pool, calls, seconds)
            watch.report(latencies, uncounted=len(warm) + concurrency)

    match sys.argv[1:]:
        case ["server"]:
            serve()
        case ["client", port, concurrency, seconds]:
            client(int(port), int(concurrency), float(seconds))
        case _:
            raise SystemExit("usage: server | client PORT CONCURRENCY SECONDS")


def announce(port: int) -> None:
    """Prints the port, and ends this process when whoever started it closes its standard input."""

    def watch() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    print(port, flush=True)


def check(greeting: str) -> None:
    """Refuses to time a peer that gives the wrong answer."""
    if greeting != GREETING:
        raise SystemExit(f"wrong greeting: {greeting!r}")


class Stopwatch:
    """Wall and CPU time since it was made."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def report(self, latencies: list[float], *, uncounted: int) -> None:
        """Prints the JSON line; `uncounted` calls were made before the watch was started."""
        elapsed, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        latencies.sort()
        count = len(latencies)
        result = {
            "rps": count / elapsed,
            "p50_us": latencies[count // 2] * 1e6,
            "p99_us": latencies[count * 99 // 100] * 1e6,
            "client_cpu_us": cpu / count * 1e6,
            "calls_made": count + uncounted,
        }
        print(json.dumps(result), flush=True)


async def _calls(call: Call, concurrency: int, seconds: float) -> list[float]:
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    async def worker() -> None:
        start = time.perf_counter()
        while start < until:
            await call()
            end = time.perf_counter()
            latencies.append(end - start)
            start = end

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())
    return latencies


def _thread_calls(
    pool: ThreadPoolExecutor, calls: list[Callable[[], str]], seconds: float
) -> list[float]:
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    def worker(call: Callable[[], str]) -> None:
        start = time.perf_counter()
        while start < until:
            call()
            end = time.perf_counter()
            latencies.append(end - start)
            start = end

    list(pool.map(worker, calls))
    return latencies
