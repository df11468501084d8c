"""probe_mux: the least a multiplexed call can cost in Python: ids, futures and framed JSON."""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import cast

from bench import load

HEAD = struct.Struct("!II")  # length, id


class Frames(asyncio.Protocol):
    """One end: cuts what comes into frames, joins what is sent in one turn."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self.loop = asyncio.get_running_loop()
        self.rest = b""
        self.out: list[bytes] = []

    def frames(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Yields id and body of the whole frames."""
        data = self.rest + data if self.rest else data
        place, size = 0, len(data)
        while size - place >= 8:
            length, number = HEAD.unpack_from(data, place)
            if place + 8 + length > size:
                break
            yield number, data[place + 8 : place + 8 + length]
            place += 8 + length
        self.rest = data[place:]

    def send(self, number: int, body: bytes) -> None:
        """Sends a frame with the others of this turn."""
        if not self.out:
            self.loop.call_soon(self.flush)
        self.out.append(HEAD.pack(len(body), number) + body)

    def flush(self) -> None:
        """Writes what was sent."""
        self.transport.write(b"".join(self.out))
        self.out.clear()


class Server(Frames):
    """Answers each frame."""

    def data_received(self, data: bytes) -> None:
        """Answers the whole frames in one write."""
        self.transport.write(
            b"".join(
                HEAD.pack(len(reply), number) + reply
                for number, body in self.frames(data)
                for reply in (load.reply_body(body),)
            )
        )


class Connection(Frames):
    """A client's connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        super().connection_made(transport)
        self.ids = itertools.count()
        self.calls: dict[int, asyncio.Future[bytes]] = {}

    def data_received(self, data: bytes) -> None:
        """Wakes the callers."""
        for number, body in self.frames(data):
            self.calls.pop(number).set_result(body)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fails the callers that wait."""
        for future in self.calls.values():
            future.set_exception(exc or ConnectionResetError("the server closed"))


@asynccontextmanager
async def serve() -> AsyncIterator[int]:
    """Serves until left."""
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def connect(port: int, concurrency: int) -> AsyncIterator[load.Call]:
    """One connection for all calls."""
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(Connection, "127.0.0.1", port)

    async def call(name: str) -> str:
        number = next(link.ids)
        future = link.calls[number] = loop.create_future()
        link.send(number, load.request_body(name))
        return load.decode_reply(await future).greeting

    yield call
    link.transport.close()


if __name__ == "__main__":
    load.main(serve, connect)
