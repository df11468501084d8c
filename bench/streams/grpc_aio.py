"""grpc_aio: streams of grpcio's asyncio server and channel: JSON for small items, bytes for large.

Handlers are generic ones, on uvloop unless told otherwise, as in `bench.peers.grpc_aio`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from itertools import count
from typing import Any

import grpc
import grpc.aio

from bench.streams import load


async def down(request: bytes, context: object) -> load.Items:
    """Sends small items."""
    for number in count():
        yield load.Item(number, load.TEXT)


async def up(items: load.Items, context: object) -> int:
    """Counts items."""
    came = 0
    async for _ in items:
        came += 1
    return came


async def both(items: load.Items, context: object) -> load.Items:
    """Sends items back."""
    async for item in items:
        yield item


async def large(request: bytes, context: object) -> AsyncIterator[bytes]:
    """Sends large items."""
    while True:
        yield load.BLOCK


@asynccontextmanager
async def serve() -> AsyncIterator[int]:
    """Serves until left."""
    reads, writes = load.decode_item, load.encode
    methods = {
        "Down": grpc.unary_stream_rpc_method_handler(down, response_serializer=writes),
        "Up": grpc.stream_unary_rpc_method_handler(up, reads, writes),
        "Both": grpc.stream_stream_rpc_method_handler(both, reads, writes),
        "Large": grpc.unary_stream_rpc_method_handler(large),
    }
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Streams", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield port
    await server.stop(None)


class Streams:
    """The streams of one channel."""

    def __init__(self, channel: Any) -> None:
        reads, writes = load.decode_item, load.encode
        self._down = channel.unary_stream("/Streams/Down", response_deserializer=reads)
        self._up = channel.stream_unary("/Streams/Up", writes, load.decode_count)
        self._both = channel.stream_stream("/Streams/Both", writes, reads)
        self._large = channel.unary_stream("/Streams/Large")

    def down(self) -> AbstractAsyncContextManager[load.Items]:
        """Opens a stream of small items."""
        return opened(self._down(b""))

    async def up(self, items: load.Items) -> int:
        """Sends small items."""
        came: int = await self._up(items)
        return came

    def both(self, items: load.Items) -> AbstractAsyncContextManager[load.Items]:
        """Sends small items and gets them back."""
        return opened(self._both(items))

    def large(self) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Opens a stream of large items."""
        return opened(self._large(b""))


@asynccontextmanager
async def opened(call: Any) -> AsyncIterator[Any]:
    """Ends a call with its block."""
    try:
        yield call
    finally:
        call.cancel()


@asynccontextmanager
async def connect(port: int) -> AsyncIterator[load.Streams]:
    """One channel."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Streams(channel)


if __name__ == "__main__":
    load.main(serve, load.client(connect))
