"""load: the call every peer makes, and the loops that serve and time it."""

from __future__ import annotations

import argparse
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

from bench import _command, peers

WARM_UP = 0.5  # seconds at most: connections open, caches fill, nothing is counted

Call = Callable[[str], Awaitable[str]]
Serve = Callable[[], AbstractAsyncContextManager[int]]
Connect = Callable[[int, int], AbstractAsyncContextManager[Call]]
Run = Callable[[Coroutine[Any, Any, None]], None]

RUN: dict[str, Run] = {"uvloop": uvloop.run, "asyncio": asyncio.run}
"""What runs a program, by the name of its event loop."""


class HelloRequest(msgspec.Struct):
    """What is asked."""

    name: str


class HelloReply(msgspec.Struct):
    """What is answered."""

    greeting: str


encode = msgspec.json.Encoder().encode
decode_request = msgspec.json.Decoder(HelloRequest).decode
decode_reply = msgspec.json.Decoder(HelloReply).decode


def name(length: int) -> str:
    """Makes the name that is sent, of so many characters."""
    return ("John Smith" * (length // 10 + 1))[:length]


def request_body(name: str) -> bytes:
    """Encodes the request, anew for every call."""
    return encode(HelloRequest(name))


def reply_body(request: bytes) -> bytes:
    """Answers a request, from JSON to JSON."""
    return encode(HelloReply(f"Hello {decode_request(request).name}"))


def main(serve: Serve, connect: Connect) -> None:
    """Runs an asyncio peer as the command line says.

    `serve()` yields the port it listens on; `connect(port, concurrency)` yields the call to make,
    which is given the name to send and returns the greeting.
    """
    words = _words().parse_args()

    async def client(port: int, concurrency: int, seconds: float) -> None:
        async with connect(port, concurrency) as call:
            sent = name(words.body)
            check(sent, await call(sent))
            warm = await calls(call, sent, concurrency, min(WARM_UP, seconds))
            watch = Stopwatch()
            latencies = await calls(call, sent, concurrency, seconds)
            watch.report(latencies, uncounted=len(warm) + 1)

    if words.side == "server":
        RUN[words.loop](serving(serve))
    else:
        RUN[words.loop](client(words.port, words.concurrency, words.seconds))


def main_threads(serve: Callable[[], None], connect: Callable[[int], Callable[[str], str]]) -> None:
    """Runs a peer of blocking calls: one thread and one connection for each call in flight.

    `serve()` announces its port and does not return; `connect(port)` opens one connection. An
    event loop it has none, whatever the command line says.
    """
    words = _words().parse_args()
    if words.side == "server":
        serve()
        return
    sent = name(words.body)
    calls = [connect(words.port) for _ in range(words.concurrency)]
    for call in calls:
        check(sent, call(sent))
    with ThreadPoolExecutor(words.concurrency) as pool:
        warm = _thread_calls(pool, calls, sent, min(WARM_UP, words.seconds))
        watch = Stopwatch()
        latencies = _thread_calls(pool, calls, sent, words.seconds)
        watch.report(latencies, uncounted=len(warm) + words.concurrency)


def _words() -> argparse.ArgumentParser:
    parser, client = sides()
    parser.add_argument("--body", type=int, default=peers.BODY, help="characters of the name")
    client.add_argument("concurrency", type=int)
    client.add_argument("seconds", type=float)
    return parser


def sides() -> tuple[argparse.ArgumentParser, argparse.ArgumentParser]:
    """Makes the command line of a peer, `server` or `client PORT`, and the part of its client."""
    parser = argparse.ArgumentParser()
    _command.add_loop(parser)
    both = parser.add_subparsers(dest="side", required=True)
    both.add_parser("server")
    client = both.add_parser("client")
    client.add_argument("port", type=int)
    return parser, client


async def serving(serve: Serve) -> None:
    """Serves until this process ends."""
    async with serve() as port:
        announce(port)
        await asyncio.Event().wait()


def announce(port: int) -> None:
    """Prints the port, and ends this process when whoever started it closes its standard input."""

    def watch() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()
    print(port, flush=True)


def check(name: str, greeting: str) -> None:
    """Refuses to time a peer that gives the wrong answer."""
    if greeting != f"Hello {name}":
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


async def calls(call: Call, name: str, concurrency: int, seconds: float) -> list[float]:
    """Makes so many calls at a time for a while; returns how long each took, in seconds."""
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    async def worker() -> None:
        start = time.perf_counter()
        while start < until:
            await call(name)
            end = time.perf_counter()
            latencies.append(end - start)
            start = end

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())
    return latencies


def _thread_calls(
    pool: ThreadPoolExecutor, calls: list[Callable[[str], str]], name: str, seconds: float
) -> list[float]:
    latencies: list[float] = []
    until = time.perf_counter() + seconds

    def worker(call: Callable[[str], str]) -> None:
        start = time.perf_counter()
        while start < until:
            call(name)
            end = time.perf_counter()
            latencies.append(end - start)
            start = end

    list(pool.map(worker, calls))
    return latencies
