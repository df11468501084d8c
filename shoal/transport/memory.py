"""Module memory is a transport inside one process, without ports."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Mapping

from shoal.errors import BadRequest, ConnectionClosed, Unavailable
from shoal.message import Header, Message
from shoal.transport import NO_METADATA, Accept, Listener, Socket, Transport
from shoal.transport._accepted import AcceptedSockets
from shoal.transport._address import candidates, join, one
from shoal.transport._header import carried, decide_nothing
from shoal.transport._inbox import Inbox

ID = "shoal.transport"
TURN = 0.005  # seconds in which messages are handed over at once in one turn of the loop
LOOK = 16  # messages between two looks at the clock
UNREAD = 16  # messages that may wait before the sender does


class MemoryTransport(Transport):
    """Connects the services that share this object; each pair of sockets in one event loop.

    Bodies are handed over as they are, of any size; headers are copied.
    """

    def __init__(self, address: str = "") -> None:
        self._listeners: dict[str, MemoryListener] = {}
        self._ports = itertools.count(10000)

    def __repr__(self) -> str:
        return f"MemoryTransport({', '.join(self._listeners)})"

    async def dial(self, address: str, metadata: Mapping[str, str] = NO_METADATA) -> Socket:
        one(address)
        listener = self._listeners.get(address)
        if listener is None:
            raise Unavailable(f"cannot connect to {address}: nobody listens there", id=ID)
        if listener.loop is not asyncio.get_running_loop():
            raise Unavailable(f"cannot connect to {address} from another event loop", id=ID)
        client = MemorySocket(f"memory:{next(self._ports)}", address, listener.turn)
        server = MemorySocket(address, client.local, listener.turn)
        client.peer, server.peer = server, client
        listener.sockets.add(server)
        return client

    async def listen(self, address: str, accept: Accept) -> Listener:
        for host, port in candidates(address):
            bound = join(host or "127.0.0.1", port or self._free(host))
            if bound not in self._listeners:
                listener = MemoryListener(bound, accept, self._listeners)
                self._listeners[bound] = listener
                return listener
        raise Unavailable(f"cannot listen at {address}: it is taken already", id=ID)

    def _free(self, host: str) -> int:
        return next(
            port for port in self._ports if join(host or "127.0.0.1", port) not in self._listeners
        )


class Turn:
    """Bounds what is done at once in a turn of the loop, which would not end otherwise."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._count = 0
        self._until = 0.0
        self._over = False

    def allows(self) -> bool:
        """Whether one more message may be handed over at once; counts it."""
        if not self._count:
            self._loop.call_soon(self._begin)
            self._until = time.monotonic() + TURN  # the loop's own time may stand still in a turn
        self._count += 1
        if self._count % LOOK == 0 and time.monotonic() > self._until:
            self._over = True
        return not self._over

    def _begin(self) -> None:
        self._count, self._over = 0, False


class MemorySocket(Socket):
    """One end of a pair."""

    numbered = False
    peer: MemorySocket

    def __init__(self, local: str, remote: str, turn: Turn) -> None:
        self.local, self.remote = local, remote
        self._turn = turn
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(self._loop)
        self._inbox.taken = self._taken
        self._coming = 0  # messages on their way to this end
        self._room = asyncio.Event()  # whether the other end may send
        self._room.set()
        self._on_lost: Callable[[], object] | None = None
        self._closed = False
        # The headers of the last message, as most have the same, and what the other end gets.
        self._own: dict[str, str] | None = None
        self._shared = self._known = Header()
        self._whole: dict[str, str] = {}
        self._alike: Header | None = None

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<MemorySocket {self.local} to {self.remote} {state}, {self._unread()} unread>"

    def try_send(self, message: Message) -> bool:
        if self._closed or self.peer._unread() >= UNREAD:
            return False
        try:
            self._hand_over(self._carried(message))
        except BadRequest:
            return False
        return True

    async def send(self, message: Message) -> None:
        peer = self.peer
        received = self._carried(message)
        while not self._closed:
            if peer._unread() < UNREAD:
                self._hand_over(received)
                return
            peer._room.clear()
            await peer._room.wait()
        error = ConnectionClosed(f"the connection to {self.remote} is closed")
        error.unsent = True
        raise error

    def _carried(self, message: Message) -> Message:
        """Return a message as the other end receives it."""
        shared, own = message.shared, message.header
        if shared is None:
            return Message(carried(own), message.body)
        if own != self._own or shared is not self._shared:
            self._learn(own, shared)
        return Message(self._whole.copy(), message.body, self._alike)

    def _learn(self, own: dict[str, str], shared: Header) -> None:
        """Work out what the other end gets of these headers. Raises BadRequest."""
        plain = carried(own)
        if shared is not self._shared:
            self._own, self._known = None, Header(carried(shared))
            self._shared = shared
        self._whole = {**self._known, **plain}
        alike = self._known.keys().isdisjoint(plain) and decide_nothing(plain)
        self._alike = self._known if alike else None
        self._own = own.copy()

    def _hand_over(self, message: Message) -> None:
        """Let the peer have a message, at once if no other task has to be resumed for that."""
        peer, inbox = self.peer, self.peer._inbox
        if peer._coming == 0 and self._done_at_once(inbox, message):
            return
        # The receiving task must not be resumed inside this one.
        peer._coming += 1
        self._loop.call_soon(peer._arrived, message)

    def _done_at_once(self, inbox: Inbox, message: Message) -> bool:
        if not inbox.waiting:
            inbox.add(message)
            return True
        if inbox.take is None or not self._turn.allows():
            return False
        task = asyncio.current_task(self._loop)
        if task is None:
            return inbox.offer(message)
        asyncio.tasks._leave_task(self._loop, task)
        try:
            return inbox.offer(message)
        finally:
            asyncio.tasks._enter_task(self._loop, task)

    def _arrived(self, message: Message) -> None:
        self._coming -= 1
        self._inbox.add(message)
        self._room.set()

    def _unread(self) -> int:
        return self._coming + len(self._inbox.messages)

    def on_message(self, take: Callable[[Message], bool]) -> None:
        self._inbox.take = take

    def recv(self) -> Awaitable[Message]:
        return self._inbox.get()

    def _taken(self) -> None:
        self._room.set()

    def on_lost(self, callback: Callable[[], object]) -> None:
        self._on_lost = callback
        if self._closed:
            self._loop.call_soon(self._tell)

    async def close(self) -> None:
        self._on_lost = None
        self._end("the socket was closed")
        self.peer._end(f"{self.local} closed the connection")

    def _end(self, why: str) -> None:
        if not self._closed:
            self._closed = True
            self._room.set()
            self.peer._room.set()
            self._loop.call_soon(self._inbox.end, ConnectionClosed(why))
            self._loop.call_soon(self._tell)

    def _tell(self) -> None:
        callback, self._on_lost = self._on_lost, None
        if callback is not None:
            callback()


class MemoryListener(Listener):
    """A name in the transport's table, and the tasks of the sockets that were accepted there."""

    def __init__(self, address: str, accept: Accept, listeners: dict[str, MemoryListener]) -> None:
        self.address = address
        self.loop = asyncio.get_running_loop()
        self.turn = Turn(self.loop)
        self.sockets = AcceptedSockets(accept)
        self._listeners = listeners

    def __repr__(self) -> str:
        return f"<listener at {self.address} with {len(self.sockets)} sockets>"

    async def close(self) -> None:
        if self._listeners.get(self.address) is self:
            del self._listeners[self.address]
        await self.sockets.close()
