"""Module _nats_socket is one end of a conversation over NATS, and the words of Shoal peers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from shoal._nats import Msg, nobody
from shoal.errors import BadRequest, ConnectionClosed, Error, TooLarge, Unavailable
from shoal.message import Message, canonical, clean
from shoal.transport import Socket
from shoal.transport._header import carried
from shoal.transport._inbox import Inbox

if TYPE_CHECKING:
    from shoal.transport.nats import NatsListener, NatsTransport

ID = "shoal.transport"

# Shoal's own words stand in a header of NATS, which Go Micro's transport does not look at: with
# the first message of a client, and on empty messages that are sent to other Shoal peers only.
WORD = "Shoal-Socket"
HELLO, PING, PONG, CLOSE = "hello", "ping", "pong", "close"


class _Wire(msgspec.Struct):
    # Names are Go Micro's (transport.Message through encoding/json, v0.x to v6).
    header: dict[str, str | None] | None = msgspec.field(name="Header", default=None)
    body: bytes | None = msgspec.field(name="Body", default=None)


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Wire).decode


def encode(message: Message) -> bytes:
    """Return the JSON of a message; raises BadRequest for one that cannot be sent."""
    header = carried(message.headers())
    if "Micro-Id" in header:
        header["Micro-ID"] = header["Micro-Id"]  # Go Micro v4.10 to v6 look for this spelling
    try:
        return _encode(_Wire(dict[str, str | None](header), message.body))
    except UnicodeEncodeError as error:
        raise BadRequest(f"a header holds no valid text: {error}", id=ID) from None


def decode(data: bytes) -> Message:
    """Return the message some JSON stands for, with canonical names; raises BadRequest."""
    try:
        wire = _decode(data)
        header = {canonical(n): clean(v or "") for n, v in (wire.header or {}).items()}
    except (msgspec.DecodeError, UnicodeError, RecursionError, ValueError) as error:
        raise BadRequest(f"what came is no message: {error}", id=ID) from None
    return Message(header, wire.body or b"")


def word_of(message: Msg) -> str:
    """Return the word of a Shoal peer that a message carries, if any."""
    return message.headers.get(WORD, "") if message.headers else ""


class NatsSocket(Socket):
    """A client's end, or with a listener a server's; both send to `remote` and hear `reply`."""

    reply = ""

    def __init__(
        self, transport: NatsTransport, remote: str, listener: NatsListener | None = None
    ) -> None:
        self.local, self.remote = "", remote
        self._transport = transport
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(self._loop)
        self._unread = 0
        self._ended = False
        self._gone = False  # whether the peer has ended it, or cannot be reached
        self._closed = False
        self._receiving = False
        self._shoal = False  # whether the peer is known to understand words
        self._unanswered = 0  # messages sent since one came
        self._heard = self._active = self._loop.time()
        self._on_lost: Callable[[], object] | None = None

    def __repr__(self) -> str:
        state = "closed" if self._closed else "ended" if self._ended else "open"
        return f"<NatsSocket {self.local} to {self.remote} {state}, {self._unread} bytes unread>"

    def open(self, reply: str) -> None:
        """Begin to hear what comes for a subject of one's own."""
        self.reply = reply
        self.local = self.local or reply

    async def send(self, message: Message) -> None:
        payload = encode(message)
        if self._ended:
            raise self._late()
        headers = None
        if self._listener is None and not self._shoal:
            headers = {WORD: HELLO}
        self._unanswered += 1
        self._active = self._loop.time()
        try:
            await self._transport.link.publish(
                self.remote, payload, reply=self.reply, headers=headers, confirm=False
            )
        except TooLarge as error:
            raise TooLarge(error.detail, id=ID) from error  # and so it is on every other node
        except Unavailable as error:
            gone = ConnectionClosed(f"{self.remote}: {error}", id=ID)
            gone.unsent = error.unsent
            raise gone from error

    async def recv(self) -> Message:
        self._receiving = True
        try:
            message = await self._inbox
        finally:
            self._receiving = False
        self._unread -= len(message.body)
        self._active = self._loop.time()
        return message

    def on_lost(self, callback: Callable[[], object]) -> None:
        self._on_lost = callback
        if self._ended:
            self._loop.call_soon(self._tell)

    async def close(self) -> None:
        self._on_lost = None
        if self._closed:
            return
        self._closed = True
        # A server that has not said anything may be Shoal's and still run the request; one of Go
        # Micro ends its socket when it reads a message without content.
        if not self._gone and (self._shoal or (self._listener is None and self._unanswered)):
            self.say(CLOSE)
        self.end(ConnectionClosed("the socket was closed", id=ID))
        self._transport.link.forget(self.reply)
        self._transport.remove(self)
        if self._listener is None:
            await self._transport.release(self)
        else:
            self._listener.forget(self)

    # What comes from NATS

    def take(self, message: Msg) -> None:
        """Take a message, a word, or the server's that nobody listens any more."""
        self._heard = self._active = self._loop.time()
        if nobody(message):
            gone = ConnectionClosed(f"nobody listens at {self.remote} any more", id=ID)
            gone.unsent = self._listener is None and self._unanswered == 1
            self.lose(gone)
            return
        word = word_of(message)
        self._shoal = self._shoal or bool(word)
        if word == CLOSE:
            self.lose(ConnectionClosed(f"{self.remote} closed", id=ID))
        elif word == PING:
            self.say(PONG)
        elif message.data or not word:
            self._take_message(message.data)

    def _take_message(self, data: bytes) -> None:
        try:
            received = decode(data)
            size = len(received.body)
            if size > self._transport.max_message:
                limit = self._transport.max_message
                raise TooLarge(f"a message of {size} bytes came, the limit is {limit}", id=ID)
            if self._unread + size > self._transport.unread:
                raise TooLarge(f"{self._unread} bytes that came were not received", id=ID)
        except (BadRequest, TooLarge) as error:
            self.end(error)
            return
        self._unanswered = 0
        self._unread += size
        # The receiving task must not be resumed inside the one that calls this.
        self._loop.call_soon(self._inbox.put, received)

    def lose(self, error: ConnectionClosed) -> None:
        """Let receiving fail because the peer is gone."""
        self._gone = True
        self.end(error)

    def end(self, error: Error) -> None:
        """Let receiving fail with this error once what came is used up."""
        if not self._ended:
            self._ended = True
            self._loop.call_soon(self._inbox.end, error)
            self._loop.call_soon(self._tell)

    def say(self, word: str) -> None:
        """Say a word, if there is a connection."""
        self._transport.link.publish_soon(self.remote, reply=self.reply, headers={WORD: word})

    def look(self, oldest: float) -> None:
        """End it if the peer must be taken for dead since a time; ask a Shoal peer otherwise."""
        if self._ended:
            return
        if self._shoal:
            if self._heard < oldest:
                self.end(ConnectionClosed(f"nothing was heard of {self.remote}", id=ID))
            else:
                self._unanswered += 1  # what comes back may be about this
                self.say(PING)
        elif self._listener is not None and self._receiving and self._active < oldest:
            self.end(ConnectionClosed(f"{self.remote} was idle", id=ID))

    def _tell(self) -> None:
        callback, self._on_lost = self._on_lost, None
        if callback is not None:
            callback()

    def _late(self) -> ConnectionClosed:
        error = ConnectionClosed(f"the conversation with {self.remote} has ended", id=ID)
        error.unsent = True
        return error
