"""Module _connection is a byte stream as a socket: all that does not depend on the framing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from shoal.errors import ConnectionClosed, Error
from shoal.message import Message
from shoal.transport import Socket
from shoal.transport._accepted import Accepted, AcceptedSockets
from shoal.transport._address import join
from shoal.transport._inbox import Inbox

UNREAD = 16  # messages that may wait before the peer is told to pause
LINGER = 1.0  # seconds in which a closing connection must make progress
LINGER_MOST = 10.0
_DISCARD = 4096


class Connection(Accepted, asyncio.BufferedProtocol, asyncio.Protocol, Socket):
    """A connection that has been made; a subclass reads and writes the framing.

    It is both kinds of protocol: asyncio takes it for a buffered one, and would allocate 256 KiB
    for each read of the other kind; uvloop takes it for the other kind, which costs it less.

    It is `lost` from the moment one side wants it closed; the transport below may then still
    write what was sent, and read what nobody wants any more.
    """

    local = ""
    remote = ""

    def __init__(self, buffer: memoryview, max_message: int) -> None:
        """Read into a buffer, which the sockets of one event loop may share."""
        self._buffer = buffer
        self._max_message = max_message
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(self._loop)
        self._transport: Any = None
        self._on_lost: Callable[[], object] | None = None
        self._lost = False
        self._paused = False
        self._writable: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = None  # for the framing, and then for closing

    def __repr__(self) -> str:
        state = "lost" if self._lost else "paused" if self._paused else "open"
        unread = len(self._inbox.messages)
        return f"<{type(self).__name__} {self.local} to {self.remote} {state}, {unread} unread>"

    # For subclasses

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Take the bytes, all of them before this returns.

        Calls `_arrived` with each message that is complete, and `shut` if it cannot be one; does
        nothing when lost.
        """
        raise NotImplementedError

    def _encode(self, message: Message) -> bytes:
        """Return a message as bytes. Raises BadRequest if it cannot be sent."""
        raise NotImplementedError

    def _arrived(self, message: Message) -> None:
        inbox = self._inbox
        inbox.put(message)
        if inbox.messages and not self._paused and not self._lost and self._full():
            self._paused = True
            inbox.taken = self._read_on
            self._transport.pause_reading()

    async def serve(self, sockets: AcceptedSockets) -> None:
        """Serve this connection that a listener has accepted, as one socket, and close it."""
        await sockets.serve(self)

    # Socket

    async def send(self, message: Message) -> None:
        data = self._encode(message)
        if self._writable is not None:
            await self._drained()
        # uvloop tells that the connection is lost in the next turn of the loop only, and for who
        # sends without an end there is none.
        if self._lost or self._transport.is_closing():
            error = ConnectionClosed(f"the connection to {self.remote} is closed")
            error.unsent = True
            raise error
        self._transport.write(data)

    def try_send(self, message: Message) -> bool:
        if self._writable is not None or self._lost:
            return False
        try:
            data = self._encode(message)
        except Error:
            return False
        self._transport.write(data)
        return True

    def on_message(self, take: Callable[[Message], bool]) -> None:
        self._inbox.take = take

    def recv(self) -> Awaitable[Message]:
        return self._inbox.get()

    def on_lost(self, callback: Callable[[], object]) -> None:
        self._on_lost = callback
        if self._lost:
            self._loop.call_soon(self._tell)

    async def close(self) -> None:
        self._on_lost = None
        if not self._lost:
            # Closing with something unread resets the connection, and what was sent is gone.
            busy = self._paused or self._timer or self._transport.get_write_buffer_size()
            self.shut(ConnectionClosed("the socket was closed"), drain=bool(busy))
        try:
            await asyncio.shield(self._closed)
        except asyncio.CancelledError:
            self._transport.abort()  # whoever is in a hurry does not wait for the peer
            raise

    def shut(self, error: Error, *, drain: bool = False) -> None:
        """Close the connection and let receiving raise the error.

        With `drain` the peer may finish what it is sending, unread, for a second.
        """
        transport = self._transport
        self._lost = True
        # Closing TLS reads what is left, at once, and another socket may just be parsing what is
        # in the buffer they share.
        self._buffer = memoryview(bytearray(_DISCARD))
        self._cancel_timer()
        self._linger(self._loop.time() + LINGER_MOST, transport.get_write_buffer_size() + 1)
        # Whoever receives is resumed by the loop, as this may be called from inside a task.
        self._loop.call_soon(self._inbox.end, error)
        self._loop.call_soon(self._tell)
        self._wake_writers()
        if not drain or transport.get_extra_info("ssl_object") is not None:
            transport.close()  # with TLS this drains by itself
            return
        try:
            transport.write_eof()
        except OSError:  # the peer has reset the connection, and nobody noticed yet
            transport.abort()
        else:
            if self._paused:
                transport.resume_reading()

    # What the loop calls

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.local = _address(transport, "sockname")
        self.remote = _address(transport, "peername")

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._cancel_timer()
        self._wake_writers()
        if not self._closed.done():
            self._closed.set_result(None)
        self._inbox.end(self._gone(f" ({exc})" if exc else ""))
        self._tell()

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        self._wake_writers()
        self._writable = None

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def eof_received(self) -> bool:
        if not self._lost:
            self.shut(self._gone())
        return False

    def _gone(self, why: str = "") -> ConnectionClosed:
        return ConnectionClosed(f"{self.remote} closed the connection{why}")

    # Backpressure

    async def _drained(self) -> None:
        while self._writable is not None and not self._lost:
            # Several may wait for it, and one that is cancelled must not cancel it for all.
            await asyncio.shield(self._writable)

    def _wake_writers(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def _full(self) -> bool:
        return len(self._inbox.messages) > UNREAD or self._unread() > self._max_message

    def _unread(self) -> int:
        return sum(len(message.body) for message in self._inbox.messages)

    def _read_on(self) -> None:
        """Let the peer go on when half of what was unread is gone."""
        if self._lost or len(self._inbox.messages) > UNREAD // 2:
            return
        if self._unread() <= self._max_message // 2:
            self._paused = False
            self._inbox.taken = None
            self._transport.resume_reading()

    # The end

    def _linger(self, until: float, before: int) -> None:
        """Abort the connection unless the peer takes what is left."""
        left = self._transport.get_write_buffer_size()
        if left < before and self._loop.time() < until:
            self._timer = self._loop.call_later(LINGER, self._linger, until, left)
        else:
            self._transport.abort()

    def _tell(self) -> None:
        callback, self._on_lost = self._on_lost, None
        if callback is not None:
            callback()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _address(transport: Any, which: str) -> str:
    name = transport.get_extra_info(which)
    return join(name[0], name[1]) if isinstance(name, tuple) else str(name or "")
