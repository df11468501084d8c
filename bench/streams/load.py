"""load: the items every peer streams, and the loops that time them.

A client says a line of JSON at each mark: when the warm-up is over, after a fifth of the time,
and at the end. Whoever started it looks at both processes then.
"""

from __future__ import annotations

import json
import os
import time
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar

import msgspec

from bench import _process
from bench.load import RUN, WARM_UP, Serve, serving, sides
from bench.streams import LARGE_SIZE

TEXT = "John Smith"
BLOCK = bytes(range(256)) * (LARGE_SIZE // 256)

T = TypeVar("T")
Client = Callable[[int, str, float], Coroutine[Any, Any, None]]


class Item(msgspec.Struct):
    """A small item: about 35 bytes of JSON."""

    number: int
    text: str


Items = AsyncIterator[Item]


class Streams(Protocol):
    """What a client streams, and a server endlessly, until its client ends the stream."""

    @abstractmethod
    def down(self) -> AbstractAsyncContextManager[Items]:
        """Opens a stream of small items from the server."""

    @abstractmethod
    async def up(self, items: Items) -> int:
        """Sends small items; the server answers how many came when there are no more."""

    @abstractmethod
    def both(self, items: Items) -> AbstractAsyncContextManager[Items]:
        """Sends small items while the server sends each of them back."""

    @abstractmethod
    def large(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Opens a stream of large items from the server."""


Connect = Callable[[int], AbstractAsyncContextManager[Streams]]

encode = msgspec.json.Encoder().encode
decode_item = msgspec.json.Decoder(Item).decode
decode_count = msgspec.json.Decoder(int).decode


def main(serve: Serve, client: Client) -> None:
    """Runs a peer as the command line says.

    `serve()` yields the port it listens on; `client(port, cell, seconds)` streams and tells marks.
    """
    parser, its_client = sides()
    its_client.add_argument("cell")
    its_client.add_argument("seconds", type=float)
    words = parser.parse_args()
    if words.side == "server":
        RUN[words.loop](serving(serve))
    else:
        RUN[words.loop](client(words.port, words.cell, words.seconds))


def client(connect: Connect) -> Client:
    """Makes the client of a peer that has all streams."""

    async def stream(port: int, cell: str, seconds: float) -> None:
        async with connect(port) as streams:
            if cell == "down":
                async with streams.down() as items:
                    await _take(items, seconds, _is_item)
            elif cell == "up":
                await _up(streams, seconds)
            elif cell == "both":
                async with streams.both(_endless()) as items:
                    await _take(items, seconds, _is_item)
            else:
                async with streams.large() as blocks:
                    await _take(blocks, seconds, _is_block)

    return stream


def phases(seconds: float) -> Iterator[tuple[float, bool]]:
    """Yields how long to go on until the next mark, and whether that is the last."""
    yield min(WARM_UP, seconds), False
    yield seconds / 5, False
    yield seconds * 4 / 5, True


def mark(items: int, *, last: bool) -> None:
    """Says how many items have come so far, and what this process has used."""
    said = {
        "items": items,
        "time": time.perf_counter(),
        "cpu": time.process_time(),
        "memory": _process.resident(os.getpid()),
        "last": last,
    }
    print(json.dumps(said), flush=True)


def refuse_unless(right: bool, what: str) -> None:
    """Refuses to time a peer that streams something else."""
    if not right:
        raise SystemExit(f"wrong stream: {what}")


async def _take(stream: AsyncIterator[T], seconds: float, check: Callable[[T, int], bool]) -> None:
    """Reads items; the last before each mark tells whether all have come."""
    count = 0
    for wait, last in phases(seconds):
        until = time.perf_counter() + wait
        async for item in stream:
            count += 1
            if time.perf_counter() >= until:
                refuse_unless(check(item, count), f"{item!r:.60} as item {count}")
                break
        else:
            raise SystemExit(f"the stream ended after {count} items")
        mark(count, last=last)


def _is_item(item: Item, count: int) -> bool:
    return item == Item(count - 1, TEXT)


def _is_block(block: bytes, count: int) -> bool:
    return block == BLOCK


async def _up(streams: Streams, seconds: float) -> None:
    """Sends items in two streams, the first of which is the warm-up.

    So nothing is on its way when the time begins, and it ends when the server has taken all.
    """
    sent: list[int] = []

    async def items(*waits: float) -> Items:
        count = 0
        for wait in waits:
            until = time.perf_counter() + wait
            while time.perf_counter() < until:
                yield Item(count, TEXT)
                count += 1
            mark(count if len(waits) > 1 else 0, last=False)
        sent.append(count)

    (warm_up, _), *timed = phases(seconds)
    warm = await streams.up(items(warm_up))
    came = await streams.up(items(*(wait for wait, _ in timed)))
    refuse_unless([warm, came] == sent, f"{[warm, came]} of {sent} items came")
    mark(came, last=True)


async def _endless() -> Items:
    count = 0
    while True:
        yield Item(count, TEXT)
        count += 1
