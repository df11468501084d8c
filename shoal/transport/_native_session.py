"""Module _native_session is a session on a shared connection: the socket of one call or stream."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from shoal.errors import BadRequest, ConnectionClosed, Error, TooLarge
from shoal.message import Header, Message
from shoal.transport import Socket
from shoal.transport._inbox import Inbox
from shoal.transport._native_frames import (
    ABORT,
    CLOSE,
    COST,
    DATA,
    FRAME,
    MAX_PAYLOAD,
    MESSAGE,
    MORE,
    PIECE,
    TOTAL,
    WINDOW,
    Violation,
    frame,
    text_of,
    values_of,
)

if TYPE_CHECKING:
    from shoal.transport._native_connection import NativeConnection

_pack = FRAME.pack
LARGEST_WINDOW = 4 * 1024 * 1024


class NativeSession(Socket):
    """Messages in order on a connection, beside other sessions that do not wait for this one.

    What it may send is a credit in bytes that the peer extends when messages were received.
    """

    numbered = False

    def __init__(self, link: NativeConnection, id: int = 0) -> None:
        """Make a session; one that is dialled gets its id with its first message."""
        assert link.peer is not None
        self.local, self.remote = link.local, link.remote
        self.id = id
        self._link = link
        self._inbox = Inbox(link.loop)
        self._on_lost: Callable[[], object] | None = None
        self._error: Error | None = None  # why it is over
        # Sending
        self._credit = link.peer.window
        self._more_credit: asyncio.Future[None] | None = None
        # The headers of the last message, as most of a session have the same, and their bytes.
        self._own: dict[str, str] = {}
        self._shared: Header | None = None
        self._text = b""
        self._number = 0
        self._epoch = 0
        # Receiving
        self._owed = 0  # bytes received and done with, for which the peer gets credit again
        self._window = link.limits.window
        self._enough = self._window // 2  # of what is owed to tell the peer
        self._came = 0  # bytes of the messages that came since the receiver was woken
        self._waiting = 0  # bytes of the messages that wait, and of pieces behind them
        self._pieces: list[bytes] | None = None
        self._missing = 0
        self._total = 0
        self._header: dict[str, str] = {}

    def __repr__(self) -> str:
        state = "open" if self._error is None else "lost"
        unread = len(self._inbox.messages)
        return f"<session {self.id} to {self.remote} {state}, {unread} unread, {self._credit} left>"

    # Socket

    async def send(self, message: Message) -> None:
        if self.try_send(message):
            return
        values_of(message.header)  # what cannot be sent need not wait
        await self._ready()
        self._head(message.header, message.shared)
        await self._send_large(message.body)

    def try_send(self, message: Message) -> bool:
        link = self._link
        if self._credit <= 0 or link.choked:
            return False
        own, body, shared = message.header, message.body, message.shared
        if own != self._own or shared is not self._shared or self._epoch != link.epoch:
            try:
                self._head(own, shared)
            except Error:
                return False
        text, number = self._text, self._number
        size = len(text) + len(body)
        if size > link.largest:
            return False
        if not self.id:
            link.open(self)
        self._credit -= size + COST
        link.write(_pack(size, MESSAGE, 0, number, self.id, len(text)), text, body)
        return True

    def _head(self, own: dict[str, str], shared: Header | None) -> None:
        """Work out the number and the values of headers. Raises BadRequest or TooLarge."""
        link = self._link
        text = values_of(own) if own else b""
        number = link.numbers.get((id(shared), *own))
        if number is None:
            number = link.define(own, shared)
        self._own, self._shared, self._epoch = own.copy(), shared, link.epoch
        self._text, self._number = text, number

    async def _send_large(self, body: bytes) -> None:
        link, text, number = self._link, self._text, self._number
        assert link.peer is not None
        if len(body) > link.peer.max_message:
            raise TooLarge(f"{self.remote} takes no message of {len(body)} bytes")
        if not self.id:
            link.open(self)
        view = memoryview(body)
        piece = view[:PIECE]
        more = MORE if len(body) > PIECE else 0
        start = text + TOTAL.pack(len(body)) if more else text
        size = len(start) + len(piece)
        self._credit -= size + COST
        link.write_large(_pack(size, MESSAGE, more, number, self.id, len(text)) + start, piece)
        try:
            for place in range(PIECE, len(body), PIECE):
                if self._credit <= 0 or link.choked:
                    await self._ready(unsent=False)
                piece = view[place : place + PIECE]
                more = MORE if place + PIECE < len(body) else 0
                self._credit -= len(piece) + COST
                link.write_large(_pack(len(piece), DATA, more, 0, self.id, 0), piece)
        except asyncio.CancelledError:
            if self._error is None:
                link.write(frame(DATA, self.id, flags=ABORT))
            raise

    def recv(self) -> Awaitable[Message]:
        return self._inbox.get()

    def on_message(self, take: Callable[[Message], bool]) -> None:
        self._inbox.take = take

    def on_lost(self, callback: Callable[[], object]) -> None:
        self._on_lost = callback
        if self._error is not None:
            self._link.loop.call_soon(self._tell)

    async def close(self) -> None:
        self._on_lost = None
        link = self._link
        if self._error is None:
            if self.id:
                link.write(frame(CLOSE, self.id))
            error = ConnectionClosed("the socket was closed")
            self._over(error)
            # Whoever receives is resumed by the loop, as this is called from inside a task.
            link.loop.call_soon(self._inbox.end, error)
        await link.left()

    # Waiting to send

    async def _ready(self, *, unsent: bool = True) -> None:
        link = self._link
        while True:
            if self._error is not None:
                raise self._closed(unsent)
            if self._credit <= 0:
                if self._more_credit is None:
                    self._more_credit = link.loop.create_future()
                # Several may wait for it, and one that is cancelled must not cancel it for all.
                await asyncio.shield(self._more_credit)
            elif link.choked:
                await link.unchoked()
            else:
                return

    def _closed(self, unsent: bool) -> Error:
        error = self._error
        if isinstance(error, TooLarge | BadRequest):
            return error.with_traceback(None)
        closed = ConnectionClosed(f"the connection to {self.remote} is closed")
        closed.unsent = unsent
        return closed

    # What the connection calls, from inside a callback of the loop

    def took(self, message: Message, cost: int) -> None:
        """Take a message that came in one frame; `wake` hands it over."""
        inbox = self._inbox
        self._came += cost
        if inbox.take is None or not inbox.offer(message):
            inbox.messages.append(message)

    def wake(self) -> None:
        """Resume who receives, after what came for this session in one go. Raises Violation.

        That is cheaper than to resume it for each message.
        """
        inbox = self._inbox
        if inbox.messages:
            inbox.wake()
        came, self._came = self._came, 0
        if inbox.messages:
            self._wait(came)
        else:
            self._owed += came
            if self._owed >= self._enough:
                self._grant()

    def began(self, header: dict[str, str], total: int, piece: bytes) -> None:
        """Take the first piece of a message. Raises Violation."""
        if self._pieces is not None or total <= len(piece):
            raise Violation("a message begins inside another")
        if total > self._link.limits.max_message:
            limit = self._link.limits.max_message
            self.refuse(TooLarge(f"a message over the limit of {limit} bytes was sent"))
            return
        self._header, self._pieces = header, []
        self._missing = self._total = total
        if not self._link.reserve(total):
            self.refuse(ConnectionClosed("too many large messages come at once"), unsent=True)
            return
        self.continued(piece, MORE)

    def continued(self, piece: bytes, flags: int) -> None:
        """Take another piece of a message. Raises Violation."""
        pieces = self._pieces
        if pieces is None:
            raise Violation("a piece of no message")
        pieces.append(piece)
        cost = len(piece) + COST
        if self._inbox.messages:
            self._wait(cost)
        else:
            self._owed += cost
            if self._owed >= self._enough:
                self._grant()
        self._missing -= len(piece)
        if flags == MORE and self._missing > 0 and piece:
            return
        self._pieces = None
        self._link.reserve(-self._total)
        if flags == ABORT and not piece:
            return
        if flags or self._missing:
            raise Violation("a body longer or shorter than it said")
        self._inbox.put(Message(self._header, b"".join(pieces)))

    def credited(self, count: int) -> None:
        """Send more. Raises Violation."""
        self._credit += count
        if self._credit > 2**31:
            raise Violation("more credit than a window may have")
        waiter = self._more_credit
        if waiter is not None and self._credit > 0:
            self._more_credit = None
            if not waiter.done():
                waiter.set_result(None)

    def refuse(self, error: Error, *, unsent: bool = False) -> None:
        """End this session, and tell both sides why."""
        code = 503 if unsent else error.code
        self._link.write(frame(CLOSE, self.id, number=code, payload=text_of(error)))
        self._over(ConnectionClosed(f"the connection to {self.remote} is closed"))
        self._inbox.end(error)
        self._tell()

    def end(self, error: Error) -> None:
        """Let receiving raise the error after what has arrived, and tell that the peer is gone."""
        if self._error is None:
            self._over(error)
            self._inbox.end(error)
            self._tell()

    # Windows

    def _wait(self, cost: int) -> None:
        if self._error is not None:
            return
        self._waiting += cost
        self._inbox.taken = self._taken
        self._link.waits(cost)
        if self._waiting > self._window + MAX_PAYLOAD + COST:
            raise Violation("more was sent than the window allows")

    def _taken(self) -> None:
        """Count a message that was received as its share of what waits.

        Which bytes are whose is all the same in the end.
        """
        cost = self._waiting // (len(self._inbox.messages) + 1)
        self._waiting -= cost
        if not self._waiting:
            self._inbox.taken = None
        self._link.waits(-cost)
        self._owed += cost
        if self._owed >= self._enough:
            self._grant()

    def _grant(self) -> None:
        if self._error is None:
            owed, self._owed = self._owed, 0
            if not self._waiting and self._window < LARGEST_WINDOW:
                # Who receives as fast as it comes is sent more at a time.
                more = min(self._window, LARGEST_WINDOW - self._window)
                self._window += more
                self._enough = self._window // 2
                owed += more
            self._link.write(frame(WINDOW, self.id, owed))

    # The end

    def _over(self, error: Error) -> None:
        self._error = error
        self._credit = 0
        link = self._link
        link.forget(self)
        link.waits(-self._waiting)
        self._waiting = 0
        if self._pieces is not None:
            self._pieces = None
            link.reserve(-self._total)
        waiter = self._more_credit
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _tell(self) -> None:
        callback, self._on_lost = self._on_lost, None
        if callback is not None:
            callback()
