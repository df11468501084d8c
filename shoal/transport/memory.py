"""Module memory is a transport inside one process, without ports."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable

from shoal.errors import ConnectionClosed, Unavailable
from shoal.message import Message
from shoal.transport import Accept, Listener, Socket, Transport
from shoal.transport._accepted import AcceptedSockets
from shoal.transport._address import candidates, join
from shoal.transport._inbox import Inbox

UNREAD = 16  # messages that may wait before the sender does


class MemoryTransport(Transport):
    """Connects the services that share this object; each pair of sockets in one event loop."""

    def __init__(self, address: str = "") -> None:
        self._listeners: dict[str, _MemoryListener] = {}
        self._ports = itertools.count(10000)

    def __repr__(self) -> str:
        return f"MemoryTransport({', '.join(self._listeners)})"

    async def dial(self, address: str) -> Socket:
        listener = self._listeners.get(address)
        if listener is None:
            raise Unavailable(
                f"cannot connect to {address}: nobody listens there", id="shoal.transport"
            )
        client = MemorySocket(f"memory:{next(self._ports)}", address)
        server = MemorySocket(address, client.local)
        client.peer, server.peer = server, client
        listener.sockets.add(server)
        return client

    async def listen(self, address: str, accept: Accept) -> Listener:
        for host, port in candidates(address):
            bound = join(host or "127.0.0.1", port or next(self._ports))
            if bound not in self._listeners:
                listener = _MemoryListener(bound, accept, self._listeners)
                self._listeners[bound] = listener
                return listener
        raise Unavailable(f"cannot listen at {address}: it is taken already", id="shoal.transport")


class MemorySocket(Socket):
    """One end of a pair."""

    peer: MemorySocket

    def __init__(self, local: str, remote: str) -> None:
        self.local, self.remote = local, remote
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(self._loop)
        self._coming = 0  # messages sent to this end that were not received yet
        self._room = asyncio.Event()
        self._room.set()
        self._lost: Callable[[], object] | None = None
        self._closed = False

    async def send(self, message: Message) -> None:
        peer = self.peer
        while not self._closed:
            if peer._coming < UNREAD:
                peer._coming += 1
                header = message.headers() if message.shared else message.header
                # The receiving task must not be resumed inside this one.
                self._loop.call_soon(peer._inbox.put, Message(header, message.body))
                return
            peer._room.clear()
            await peer._room.wait()
        error = ConnectionClosed(f"the connection to {self.remote} is closed")
        error.unsent = True
        raise error

    async def recv(self) -> Message:
        message = await self._inbox
        self._coming -= 1
        self._room.set()
        return message

    def on_lost(self, callback: Callable[[], object]) -> None:
        self._lost = callback
        if self._closed:
            self._loop.call_soon(callback)

    async def close(self) -> None:
        self._lost = None
        self._end("the socket was closed")
        self.peer._end(f"{self.local} closed the connection")

    def _end(self, why: str) -> None:
        if not self._closed:
            self._closed = True
            self._room.set()
            self.peer._room.set()
            self._loop.call_soon(self._inbox.end, ConnectionClosed(why))
            if self._lost is not None:
                self._loop.call_soon(self._lost)


class _MemoryListener(Listener):
    def __init__(self, address: str, accept: Accept, listeners: dict[str, _MemoryListener]) -> None:
        self.address = address
        self.sockets = AcceptedSockets(accept)
        self._listeners = listeners

    async def close(self) -> None:
        self._listeners.pop(self.address, None)
        await self.sockets.close()
