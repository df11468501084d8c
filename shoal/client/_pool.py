"""Module _pool keeps connections that are not in use for the next call to their address."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from shoal.health import Gauge
from shoal.registry import Node
from shoal.transport import Socket, Transport


class Pool:
    """Idle sockets by address, the last used first; each is used by one call at a time.

    At most `size` idle ones per address, each for at most `ttl` seconds of idleness.
    """

    def __init__(self, transport: Transport, *, size: int, ttl: float) -> None:
        self._transport = transport
        self._size = size
        self._ttl = ttl
        self._idle: dict[str, list[tuple[Socket, float]]] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._sweeper: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"Pool({ {address: len(idle) for address, idle in self._idle.items()} })"

    def gauges(self) -> Iterator[Gauge]:
        """Yield how many connections are idle, and to how many addresses; any thread may ask."""
        idle = [len(sockets) for sockets in list(self._idle.values())]
        yield Gauge("client_connections_idle", sum(idle))
        yield Gauge("client_addresses", len(idle))

    def take(self, address: str) -> Socket | None:
        """Return an idle socket for an address, None if there is none."""
        idle = self._idle.get(address)
        return idle.pop()[0] if idle else None

    async def dial(self, node: Node) -> Socket:
        """Connect anew."""
        address = node.address
        socket = await self._transport.dial(address, node.metadata)
        socket.on_lost(lambda: self._lost(address, socket))
        return socket

    def give(self, address: str, socket: Socket, now: float) -> None:
        """Take a socket back after a call that went well; `now` is the loop's time."""
        idle = self._idle.get(address)
        if idle is None:
            idle = self._idle[address] = []
        if len(idle) >= self._size:
            self.drop(socket)
            return
        idle.append((socket, now))
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(self._ttl, self._sweep)

    def drop(self, socket: Socket) -> None:
        """Close a socket in the background."""
        task = asyncio.get_running_loop().create_task(socket.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close all idle sockets, and keep none any more: those in use are closed after it."""
        self._size = 0
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for idle in self._idle.values():
            for socket, _ in idle:
                self.drop(socket)
        self._idle.clear()
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _lost(self, address: str, socket: Socket) -> None:
        idle = self._idle.get(address, [])
        kept = [entry for entry in idle if entry[0] is not socket]
        if len(kept) < len(idle):  # one in use is closed by its call
            self._idle[address] = kept
            self.drop(socket)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        oldest = loop.time() - self._ttl
        for address, idle in list(self._idle.items()):
            for socket, since in idle:
                if since <= oldest:
                    self.drop(socket)
            kept = [entry for entry in idle if entry[1] > oldest]
            if kept:
                self._idle[address] = kept
            else:
                del self._idle[address]
        first = min((idle[0][1] for idle in self._idle.values()), default=None)
        self._sweeper = None
        if first is not None:
            self._sweeper = loop.call_at(first + self._ttl, self._sweep)
