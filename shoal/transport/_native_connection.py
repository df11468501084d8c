"""Module _native_connection is a connection that carries any number of sessions."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from shoal.errors import BadRequest, ConnectionClosed, Error, TooLarge
from shoal.message import Message
from shoal.transport._accepted import AcceptedSockets
from shoal.transport._native_frames import (
    CLOSE,
    COST,
    DATA,
    DEFINE,
    FRAME,
    GOAWAY,
    MAX_HEADER,
    MAX_PAYLOAD,
    MAX_TEXT,
    MESSAGE,
    MORE,
    PING,
    PONG,
    TOTAL,
    WINDOW,
    Limits,
    ReceivedShapes,
    Violation,
    frame,
    learn,
)
from shoal.transport._native_link import NativeLink
from shoal.transport._native_session import NativeSession

logger = logging.getLogger(__name__)

PORTION = 8  # messages that are taken in one turn of the loop, or half of what there is
MANY = 40  # messages after which the peer sends the next ones without waiting for answers
LARGEST_LEFT = 64 * 1024  # bytes of frames that may be left for the next one
UNREAD = 64 * 1024 * 1024  # bytes that may wait in all sessions before nothing is read
INCOMPLETE = 64 * 1024 * 1024  # bytes of messages of which pieces are missing
LAST_ID = 2**32 - 1

_unpack = FRAME.unpack_from
_SIZE = FRAME.size


class NativeConnection(NativeLink):
    """Moves the frames of its sessions, and opens those the peer begins."""

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
        super().__init__(
            buffer, limits, dialled=accept is None, keep_alive=keep_alive, timeout=timeout
        )
        self._accept = accept
        self._sessions: dict[int, NativeSession] = {}
        self._users: set[NativeSession] = set()
        self._leaving = False  # no new sessions
        self._empty: asyncio.Future[None] | None = None
        self._shapes = ReceivedShapes()
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

    # Reading

    def _parse(self, data: bytes, place: int) -> int:
        """Take the whole frames, and return where what is left begins. Raises Violation.

        Of many small ones the rest is for the next turn of the loop: what was sent goes out
        before that, and the peer has something to do meanwhile.
        """
        size = len(data)
        portion = size if size > LARGEST_LEFT or self.ending else 0
        taken = 0
        sessions, shapes = self._sessions, self._shapes.known
        last: NativeSession | None = None  # the one for which messages come just now
        while size - place >= _SIZE:
            length, kind, flags, number, id, count = _unpack(data, place)
            start = place + _SIZE
            end = start + length
            if length > MAX_PAYLOAD:
                raise Violation("a frame over the limit")
            if end > size:
                break
            if kind == MESSAGE and not flags:
                taken += 1
                if taken > portion:
                    if portion:
                        self.more = True
                        break
                    alike = (size - place) // (end - place)
                    portion = alike if alike > MANY else max(PORTION, alike // 2)
                place = end
                session = sessions.get(id) or self._opened(id)
                if session is None:
                    continue
                body = start + count
                if number >= len(shapes) or count > length:
                    raise Violation("a message with an unknown header")
                if length > MAX_HEADER and count > MAX_HEADER:
                    raise Violation("a header over the limit")
                shape, values = shapes[number], data[start:body]
                if values != shape.values:
                    learn(shape, values)
                header = shape.whole.copy()
                if session is not last:
                    if last is not None:
                        last.wake()
                    last = session
                if length > self._max_message and end - body > self._max_message:
                    session.refuse(self._over_limit())
                else:
                    session.took(Message(header, data[body:end], shape.plain), length + COST)
            else:
                place = end
                if last is not None:
                    last.wake()
                    last = None
                self._frame(kind, flags, number, id, count, data[start:end])
        if last is not None:
            last.wake()
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
            learn(shapes[number], payload[:count])
            header = shapes[number].whole.copy()
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

    def _end_sessions(self, error: Error) -> None:
        for session in list(self._users):
            detail = str(error)
            session.end(error if isinstance(error, BadRequest) else ConnectionClosed(detail))
