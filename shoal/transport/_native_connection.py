"""Module _native_connection is a connection that carries any number of sessions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from shoal.errors import BadRequest, ConnectionClosed, Error, TooLarge
from shoal.message import Header, Message
from shoal.transport._accepted import AcceptedSockets
from shoal.transport._connection import Connection
from shoal.transport._native_frames import (
    CLOSE,
    COST,
    DATA,
    DEFINE,
    FRAME,
    GOAWAY,
    MAGIC,
    MAX_HEADER,
    MAX_PAYLOAD,
    MAX_TEXT,
    MESSAGE,
    MORE,
    PIECE,
    PING,
    PONG,
    PREFACE,
    TOTAL,
    VERSION,
    WINDOW,
    Limits,
    ReceivedShapes,
    SentShapes,
    Violation,
    frame,
    header_of,
    text_of,
)
from shoal.transport._native_session import NativeSession

logger = logging.getLogger(__name__)

UNREAD = 64 * 1024 * 1024  # bytes that may wait in all sessions before nothing is read
INCOMPLETE = 64 * 1024 * 1024  # bytes of messages of which pieces are missing
JOINED = 96  # parts that are joined to one write: 32 messages
LARGE = 4096  # bytes of a body that is not kept back to be joined with others
LAST_ID = 2**32 - 1

_unpack = FRAME.unpack_from
_SIZE = FRAME.size


class NotNative(Exception):
    """Who answered does not speak this protocol, or not this version of it."""


class NativeConnection(Connection):
    """Moves the frames of its sessions.

    What is sent while frames are being read goes out in one write when all of them are; of what
    is sent otherwise, the first goes out at once and the rest at the end of the loop's turn.
    """

    def __init__(
        self,
        buffer: memoryview,
        limits: Limits,
        *,
        accept: Callable[[NativeSession], object] | None = None,
        keep_alive: float,
        timeout: float,
    ) -> None:
        """Be the side that dialled, or that accepted and gives each session to `accept`.

        `timeout` seconds may pass until the preface has come, `keep_alive` in silence.
        """
        super().__init__(buffer, limits.max_message)
        self.limits = limits
        self.loop = self._loop
        self.peer: Limits | None = None
        self.choked = False
        self.largest = PIECE  # bytes of a message that goes out in one frame
        self.greeted: asyncio.Future[None] = self._loop.create_future()
        self._accept = accept
        self._dialled = accept is None
        self._keep_alive = keep_alive
        self._timeout = timeout
        self._keeper: asyncio.TimerHandle | None = None
        self._heard = False
        self._asked = False
        # Sessions
        self._sessions: dict[int, NativeSession] = {}
        self._users: set[NativeSession] = set()
        self._last = 0  # the highest id there was
        self._leaving = False  # no new sessions
        self._empty: asyncio.Future[None] | None = None
        # Bytes
        self._sent = SentShapes()
        self.numbers = self._sent.numbers
        self._shapes = ReceivedShapes()
        self._rest = b""
        self._out: list[bytes] = []
        self._held = False  # what is sent is kept to be joined
        self._unread_bytes = 0
        self._incomplete_bytes = 0

    def __repr__(self) -> str:
        state = "lost" if self._lost else "leaving" if self._leaving else "open"
        return f"<connection {self.local} to {self.remote} {state}, {len(self._users)} sessions>"

    # Sessions

    @property
    def usable(self) -> bool:
        """Whether another session can be opened."""
        return (
            not (self._lost or self._leaving)
            and self.peer is not None
            and len(self._users) < self.peer.sessions
        )

    def session(self) -> NativeSession:
        """Return a new session; it exists for the peer with its first message."""
        session = NativeSession(self)
        self._users.add(session)
        return session

    def open(self, session: NativeSession) -> None:
        """Give a session its id."""
        self._last += 1
        if self._last == LAST_ID:
            self._leaving = True
        session.id = self._last
        self._sessions[session.id] = session

    def forget(self, session: NativeSession) -> None:
        """Hear no more of a session."""
        self._sessions.pop(session.id, None)
        self._users.discard(session)
        if not self._users and self._empty is not None and not self._empty.done():
            self._empty.set_result(None)

    async def left(self) -> None:
        """Close a connection that was dialled and whose last session is closed."""
        if self._dialled and not self._users:
            await self.close()

    async def serve(self, sockets: AcceptedSockets) -> None:
        """Serve the sessions a peer opens until it is gone.

        Cancelled, it tells the peer, and waits for the sessions that are being closed.
        """
        try:
            await self.recv()  # nothing is ever received here: it raises at the end
        except Error as error:
            logger.debug("the connection from %s ended: %s", self.remote, error)
        finally:
            if not self._lost:
                self.leave()
                while self._users and not sockets.from_inside:
                    self._empty = self._loop.create_future()
                    await self._empty
            await self.close()

    def leave(self) -> None:
        """Take no new sessions, and tell the peer."""
        self._leaving = True
        self.write(frame(GOAWAY, 0, self._last))

    # Writing

    def write(self, head: bytes, text: bytes = b"", body: bytes = b"") -> None:
        """Send a frame, or keep it until others can go with it."""
        out = self._out
        out += (head, text, body)
        if not self._held:
            self._flush()
            self._held = True
            self._loop.call_soon(self._release)
        elif len(out) > JOINED or len(body) > LARGE:
            self._flush()

    def write_large(self, head: bytes, piece: memoryview) -> None:
        """Send a frame whose payload ends in a piece of a body, which is not copied."""
        self._out.append(head)
        self._flush()
        if not self._lost:
            self._transport.write(piece)

    def define(self, header: dict[str, str], shared: Header | None) -> int:
        """Return a number for headers, and tell it. Raises BadRequest or TooLarge."""
        number, told = self._sent.define(header, shared)
        self.numbers = self._sent.numbers
        self.write(told)
        return number

    def _flush(self) -> None:
        out = self._out
        if out:
            data = b"".join(out)
            out.clear()
            if not self._lost:
                self._transport.write(data)

    def _release(self) -> None:
        self._held = False
        self._flush()

    async def unchoked(self) -> None:
        """Wait until the system takes more, or the connection is lost."""
        await self._drained()

    def pause_writing(self) -> None:
        super().pause_writing()
        self.choked = True

    def resume_writing(self) -> None:
        self.choked = False
        super().resume_writing()

    # Reading

    def buffer_updated(self, nbytes: int) -> None:
        if self._lost:
            return
        data = self._rest + self._buffer[:nbytes]
        self._heard = True
        self._held = True
        try:
            if self.peer is None:
                data = self._greeting(data)
            self._rest = data[self._parse(data) :] if self.peer is not None else data
        except Violation as error:
            self._rest = b""
            self._refuse(BadRequest(f"{self.remote} sent {error}"))
        finally:
            self._held = False
            if self._out:
                self._flush()

    def _parse(self, data: bytes) -> int:
        """Take the whole frames, and return where what is left begins. Raises Violation."""
        place, size = 0, len(data)
        sessions, shapes = self._sessions, self._shapes.known
        while size - place >= _SIZE:
            length, kind, flags, number, id, count = _unpack(data, place)
            start = place + _SIZE
            end = start + length
            if length > MAX_PAYLOAD:
                raise Violation("a frame over the limit")
            if end > size:
                break
            place = end
            if kind == MESSAGE and not flags:
                session = sessions.get(id) or self._opened(id)
                if session is None:
                    continue
                body = start + count
                if number >= len(shapes) or count > length:
                    raise Violation("a message with an unknown header")
                header = header_of(shapes[number], data[start:body])
                if length > self._max_message and end - body > self._max_message:
                    session.refuse(self._over_limit())
                else:
                    session.took(Message(header, data[body:end]), length + COST)
            else:
                self._frame(kind, flags, number, id, count, data[start:end])
        return place

    def _frame(  # what a frame has
        self, kind: int, flags: int, number: int, id: int, count: int, payload: bytes
    ) -> None:
        session = self._sessions.get(id)
        if kind == MESSAGE:
            self._began(flags, number, id, count, payload)
        elif kind == DATA:
            if session is not None:
                session.continued(payload, flags)
        elif kind == DEFINE:
            self._shapes.define(number, flags, count, payload)
        elif kind == WINDOW and not payload:
            if session is not None:
                session.credited(count)
        elif kind == CLOSE and len(payload) <= MAX_TEXT:
            if session is not None:
                session.end(self._told(number, payload))
            elif not self._dialled:
                self._last = max(self._last, id)
        elif kind == PING and not payload:
            self.write(frame(PONG, 0, count))
        elif kind == GOAWAY and len(payload) <= MAX_TEXT:
            self._told_to_leave(number, count, payload)
        elif kind != PONG or payload:
            raise Violation(f"a frame of the unknown type {kind}")

    def _began(self, flags: int, number: int, id: int, count: int, payload: bytes) -> None:
        session = self._sessions.get(id) or self._opened(id)
        shapes = self._shapes.known
        if flags != MORE or number >= len(shapes) or count + TOTAL.size > len(payload):
            raise Violation("a message that cannot be")
        if count > MAX_HEADER:
            raise Violation("a header over the limit")
        if session is not None:
            header = header_of(shapes[number], payload[:count])
            (total,) = TOTAL.unpack_from(payload, count)
            session.began(header, total, payload[count + TOTAL.size :])

    def _opened(self, id: int) -> NativeSession | None:
        """Return the session a message opens; None if it was closed or may not be."""
        if self._dialled or id <= self._last or self._leaving:
            return None
        self._last = id
        session = NativeSession(self, id)
        if len(self._users) >= self.limits.sessions:
            session.refuse(ConnectionClosed("too many sessions on this connection"), unsent=True)
            return None
        self._sessions[id] = session
        self._users.add(session)
        assert self._accept is not None
        self._accept(session)
        return session

    def _told(self, code: int, payload: bytes) -> Error:
        text = payload.decode("utf-8", "replace")
        detail = f"{self.remote} closed the connection{f': {text}' if text else ''}"
        error = {400: BadRequest, 413: TooLarge}.get(code, ConnectionClosed)(detail)
        error.unsent = code == 503
        return error

    def _told_to_leave(self, code: int, last: int, payload: bytes) -> None:
        self._leaving = True
        if self._dialled:
            for id, session in list(self._sessions.items()):
                if id > last:
                    session.end(self._told(503, payload))
        if code:
            logger.info(
                "%s ends the connection: %s", self.remote, payload.decode("utf-8", "replace")
            )
            self.shut(self._told(code, payload))

    def _over_limit(self) -> Error:
        return TooLarge(f"{self.remote} sent a message over the limit of {self._max_message} bytes")

    # The preface

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._timer = self._loop.call_later(self._timeout, self._too_slow)
        if self._dialled:
            transport.write(self.limits.preface())

    def _greeting(self, data: bytes) -> bytes:
        """Take the preface if it is there, and return what follows."""
        if not data.startswith(MAGIC[: len(data)]):
            self._not_native("it speaks another protocol")
        elif len(data) >= PREFACE.size:
            _, version, window, largest, sessions = PREFACE.unpack_from(data)
            if not self._dialled:
                self.write(self.limits.preface())
            if version != VERSION:
                self._not_native(f"it speaks version {version} of the protocol, this {VERSION}")
            else:
                self._cancel_timer()
                self.peer = Limits(largest, window, sessions)
                self.largest = min(PIECE, largest)
                self._keeper = self._loop.call_later(self._keep_alive / 2, self._look)
                if not self.greeted.done():
                    self.greeted.set_result(None)
                return data[PREFACE.size :]
        return data

    def _not_native(self, why: str) -> None:
        if not self.greeted.done():
            self.greeted.set_exception(NotNative(why))
            self.greeted.exception()
        logger.log(logging.DEBUG if self._dialled else logging.INFO,
                   "closing the connection to %s: %s", self.remote, why)  # fmt: skip
        self.shut(ConnectionClosed(f"{self.remote}: {why}"), drain=True)

    def _too_slow(self) -> None:
        self._timer = None
        self.shut(ConnectionClosed(f"{self.remote} said nothing within {self._timeout:g} s"))

    # Memory

    def waits(self, count: int) -> None:
        """Count bytes that nobody has received yet."""
        self._unread_bytes += count
        if self._paused:
            if self._unread_bytes <= UNREAD // 2 and not self._lost:
                self._paused = False
                self._transport.resume_reading()
        elif self._unread_bytes > UNREAD and not self._lost:
            self._paused = True
            self._transport.pause_reading()

    def reserve(self, count: int) -> bool:
        """Count the bytes of messages that come in pieces; False if there is no room for more."""
        self._incomplete_bytes += count
        return self._incomplete_bytes <= max(INCOMPLETE, self._max_message)

    # The end

    def _look(self) -> None:
        """Ask a silent peer whether it is there; give it up if it stays silent."""
        self._keeper = self._loop.call_later(self._keep_alive / 2, self._look)
        if self._heard or self._paused:
            self._heard = self._asked = False
        elif not self._asked:
            self._asked = True
            self.write(frame(PING))
        else:
            self.shut(
                ConnectionClosed(f"{self.remote} has said nothing for {self._keep_alive:g} s")
            )
            self._transport.abort()

    def _refuse(self, error: Error) -> None:
        if not self._lost:
            logger.info("closing the connection: %s", error)
            self.write(frame(GOAWAY, 0, self._last, number=error.code, payload=text_of(error)))
            self.shut(error, drain=True)

    async def close(self) -> None:
        if not self._lost:
            # The peer may be sending, if only credit: closing with that unread resets it.
            self.shut(ConnectionClosed("the connection was closed"), drain=True)
            self._tell()
        await super().close()

    def abort(self) -> None:
        """Close at once, whatever the peer does."""
        if not self._lost:
            self.shut(ConnectionClosed("the connection was closed"))
        self._transport.abort()

    def shut(self, error: Error, *, drain: bool = False) -> None:
        self._flush()
        super().shut(error, drain=drain)
        self._stop_keeper()
        self._loop.call_soon(self._end_sessions, error)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop_keeper()
        self._out.clear()
        if not self.greeted.done():
            self.greeted.set_exception(NotNative("it closed the connection at once"))
            self.greeted.exception()
        self._end_sessions(self._gone(f" ({exc})" if exc else ""))

    def _end_sessions(self, error: Error) -> None:
        for session in list(self._users):
            detail = str(error)
            session.end(error if isinstance(error, BadRequest) else ConnectionClosed(detail))

    def _stop_keeper(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
