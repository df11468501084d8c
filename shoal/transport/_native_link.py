"""Module _native_link is a connection that speaks Shoal's own protocol: bytes, silence, the end."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from shoal.errors import BadRequest, ConnectionClosed, Error
from shoal.message import Header
from shoal.transport._connection import Connection
from shoal.transport._native_frames import (
    FRAME,
    GOAWAY,
    MAGIC,
    PIECE,
    PING,
    PREFACE,
    VERSION,
    Limits,
    SentShapes,
    Violation,
    frame,
    text_of,
)

logger = logging.getLogger(__name__)

JOINED = 96  # parts that are joined to one write: 32 messages
LARGE_READ = 16 * 1024  # bytes that are not copied to come behind the beginning of a frame
LARGE = 4096  # bytes of a body that is not kept back to be joined with others


HIGH, LOW = 256 * 1024, 64 * 1024  # bytes written that the system has not taken


class NotNative(Exception):
    """Who answered does not speak this protocol, or not this version of it."""


class NativeLink(Connection):
    """Moves bytes; a subclass reads and makes the frames.

    What is sent while frames are being read goes out in one write when all of them are; of what
    is sent otherwise, the first goes out at once and the rest at the end of the loop's turn.
    """

    def __init__(
        self,
        buffer: memoryview,
        limits: Limits,
        *,
        dialled: bool,
        keep_alive: float,
        timeout: float,
    ) -> None:
        """Bound the seconds until the preface has come, and those of silence."""
        super().__init__(buffer, limits.max_message)
        self.limits = limits
        self.loop = self._loop
        self.peer: Limits | None = None
        self.greeted: asyncio.Future[None] = self._loop.create_future()
        """Done when the peer has answered; fails with NotNative."""
        self.choked = False
        self.largest = PIECE  # bytes of a message that goes out in one frame
        self._dialled = dialled
        self._timeout = timeout
        self._last = 0  # the highest id of a session there was
        # Silence
        self._keep_alive = keep_alive
        self._keeper: asyncio.TimerHandle | None = None
        self._heard = False
        self._asked = False
        # Bytes
        self._sent = SentShapes()
        self.numbers = self._sent.numbers
        self.epoch = 0  # how often numbers began again
        self._parts: list[bytes] = []  # of a frame that is not complete
        self._missing = 0  # bytes of it that have not come; 0 if not even its head is complete
        self.more = False  # whole frames were left for the next turn of the loop
        self.ending = False  # and there is none
        self._out: list[bytes] = []
        self._held = False  # what is sent is kept to be joined

    # For the subclass

    def _parse(self, data: bytes, place: int) -> int:
        """Take the whole frames from a place on; return where the rest is. Raises Violation."""
        raise NotImplementedError

    def _end_sessions(self, error: Error) -> None:
        """Tell all sessions that the connection is gone."""
        raise NotImplementedError

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
        if self.numbers is not self._sent.numbers:
            self.numbers = self._sent.numbers
            self.epoch += 1
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

    def data_received(self, data: bytes) -> None:
        if self._lost:
            return
        self._heard = True
        self._held = True
        self.more = False
        try:
            if self._missing > len(data):
                self._parts.append(data)
                self._missing -= len(data)
            else:
                self._take(data)
        except Violation as error:
            self._parts.clear()
            self._refuse(BadRequest(f"{self.remote} sent {error}"))
        finally:
            self._held = False
            if self._out:
                self._flush()

    def _take(self, data: bytes) -> None:
        """Parse what has come, and keep the beginning of the last frame. Raises Violation."""
        parts, place = self._parts, 0
        if parts and self._missing and len(data) > LARGE_READ:
            place = self._missing
            parts.append(data[:place])
            whole = b"".join(parts)
            parts.clear()
            self._parse(whole, 0)
        elif parts:
            data = b"".join((*parts, data))
            parts.clear()
        if self.peer is None:
            data = self._greeting(data)
        if self.peer is not None:
            place = self._parse(data, place)
        self._missing = 0
        if place < len(data):
            rest = data[place:]
            parts.append(rest)
            if self.peer is not None and len(rest) >= FRAME.size:
                self._missing = max(0, FRAME.size + FRAME.unpack_from(rest)[0] - len(rest))
        if self.more:
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self.more:
            self.data_received(b"")

    def _take_rest(self) -> None:
        """Take what was left for the next turn of the loop, as there may be none."""
        self.ending = True
        self._go_on()

    # The preface

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(HIGH, LOW)
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
        # Before the loop tells that the connection is lost, for which nobody would know why.
        self._loop.call_soon(self._end_sessions, error)
        super().shut(error, drain=drain)
        self._stop_keeper()

    def eof_received(self) -> bool:
        self._take_rest()
        return super().eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._take_rest()
        super().connection_lost(exc)
        self._stop_keeper()
        self._out.clear()
        if not self.greeted.done():
            self.greeted.set_exception(NotNative("it closed the connection at once"))
            self.greeted.exception()
        self._end_sessions(self._gone(f" ({exc})" if exc else ""))

    def _stop_keeper(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
