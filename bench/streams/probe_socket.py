"""probe_socket: large items over bare protocols: the most bytes a Python program can stream.

Nobody cuts them into items or hands them over.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from bench.streams import load


class Server(asyncio.Protocol):
    """Writes as long as there is room."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begins."""
        self.transport = cast("asyncio.Transport", transport)
        self.resume_writing()

    def pause_writing(self) -> None:
        """Waits for room."""
        self.room = False

    def resume_writing(self) -> None:
        """Writes until there is no room."""
        self.room = True
        while self.room and not self.transport.is_closing():
            self.transport.write(load.BLOCK)


class Connection(asyncio.BufferedProtocol):
    """Reads into one buffer."""

    def __init__(self) -> None:
        self.buffer = bytearray(4 * len(load.BLOCK))
        self.received = self.latest = 0
        self.lost = False

    def get_buffer(self, sizehint: int) -> bytearray:
        """Lends the buffer."""
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Counts."""
        self.received += nbytes
        self.latest = nbytes

    def connection_lost(self, exc: Exception | None) -> None:
        """Keeps in mind that no more will come."""
        self.lost = True

    def right(self) -> bool:
        """Tells whether the bytes that came last are those that were sent."""
        start = (self.received - self.latest) % len(load.BLOCK)
        begin = load.BLOCK[start : start + self.latest]
        return not self.lost and self.latest > 0 and self.buffer.startswith(begin)


@asynccontextmanager
async def serve() -> AsyncIterator[int]:
    """Serves until left."""
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]


async def client(port: int, cell: str, seconds: float) -> None:
    """Reads for a while."""
    loop = asyncio.get_running_loop()
    transport, connection = await loop.create_connection(Connection, "127.0.0.1", port)
    for wait, last in load.phases(seconds):
        await asyncio.sleep(wait)
        load.refuse_unless(connection.right(), f"{connection.received} bytes came")
        load.mark(connection.received // len(load.BLOCK), last=last)
    transport.close()


if __name__ == "__main__":
    load.main(serve, client)
