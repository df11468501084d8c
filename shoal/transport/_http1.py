"""Module _http1 is one HTTP/1.1 connection as a socket: each message a request, or a response.

The framing is Go Micro's (transport/http of v1 to v6): the client's messages are requests, the
server's are responses, and the two are not paired; a stream sends any number of either.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import httptools

from shoal.errors import BadRequest, ConnectionClosed, Error, TooLarge
from shoal.message import Header, Message, canonical, clean
from shoal.transport import Socket
from shoal.transport._address import join
from shoal.transport._inbox import Inbox

logger = logging.getLogger(__name__)

MAX_HEADER = 64 * 1024
MAX_HEADERS = 256
UNREAD = 16  # messages that may wait before the peer is told to pause
BUFFER = 256 * 1024
_REASONS = {400: "Bad Request", 408: "Request Timeout", 413: "Content Too Large",
            431: "Request Header Fields Too Large"}  # fmt: skip

_names: dict[bytes, str] = {}


def _name(raw: bytes) -> str:
    name = _names.get(raw)
    if name is None:
        name = canonical(raw.decode("latin-1"))
        if len(_names) < 4096:  # bounded: a hostile peer may send any number of names
            _names[raw] = name
    return name


class HttpSocket(asyncio.BufferedProtocol, Socket):
    """A connection that has been made, either side of it."""

    local = ""
    remote = ""
    _start: bytes  # what every message of this side begins with

    def __init__(self, buffer: memoryview, max_message: int, read_timeout: float) -> None:
        # The loop reads and hands over in one go, so all sockets of a transport share a buffer.
        self._buffer = buffer
        self._max_message = max_message
        self._read_timeout = read_timeout
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(self._loop)
        self._transport: Any = None
        self._on_lost: Callable[[], object] | None = None
        self._lost = False
        self._writable: asyncio.Future[None] | None = None
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._paused = False
        self._slow: asyncio.TimerHandle | None = None
        self._header: dict[str, str] = {}
        self._header_size = 0
        self._head_bytes = 0
        self._in_head = False
        self._body: bytes | bytearray = b""
        self._started = False  # a message has begun to arrive
        self._parser = self._new_parser()

    def __repr__(self) -> str:
        state = "lost" if self._lost else "open"
        return f"<{type(self).__name__} {self.local} to {self.remote} {state}>"

    def _new_parser(self) -> Any:
        raise NotImplementedError

    # Socket

    async def send(self, message: Message) -> None:
        if self._lost:
            error = ConnectionClosed(f"the connection to {self.remote} is closed")
            error.unsent = True
            raise error
        self._transport.write(self._encode(message))
        if self._writable is not None:
            await asyncio.shield(self._writable)

    async def recv(self) -> Message:
        message = await self._inbox
        if self._paused and len(self._inbox.messages) <= UNREAD // 2 and not self._lost:
            self._paused = False
            self._transport.resume_reading()
        return message

    def on_lost(self, callback: Callable[[], object]) -> None:
        self._on_lost = callback
        if self._lost:
            self._loop.call_soon(callback)

    async def close(self) -> None:
        self._on_lost = None
        if not self._lost:
            self.shut(ConnectionClosed("the socket was closed"))
        # A peer that does not read must not hold this side.
        done, _ = await asyncio.wait([self._closed], timeout=1.0)
        if not done:
            self._transport.abort()

    def shut(self, error: Error) -> None:
        """Close the connection and let receiving raise the error."""
        self._lost = True
        # Whoever receives is resumed by the loop, as this may be called from inside a task.
        self._loop.call_soon(self._inbox.end, error)
        self._transport.close()

    # What the loop calls

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.local = _address(transport, "sockname")
        self.remote = _address(transport, "peername")

    def connection_lost(self, error: Exception | None) -> None:
        self._lost = True
        if self._slow is not None:
            self._slow.cancel()
        self._inbox.end(
            ConnectionClosed(
                f"{self.remote} closed the connection" + (f" ({error})" if error else "")
            )
        )
        if self._writable is not None and not self._writable.done():
            self._writable.set_exception(ConnectionClosed(f"{self.remote} closed the connection"))
            self._writable.exception()  # nobody may be waiting any more
        if not self._closed.done():
            self._closed.set_result(None)
        if self._on_lost is not None:
            self._on_lost()

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, count: int) -> None:
        if self._lost:
            return
        try:
            self._parser.feed_data(self._buffer[:count])
        except httptools.HttpParserUpgrade:
            self._refuse(400, BadRequest("the peer wants another protocol on this connection"))
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if isinstance(cause, TooLarge):
                self._refuse(413, cause)
            elif isinstance(cause, ValueError | Error):
                self._refuse(400, BadRequest(f"{self.remote} sent a bad header: {cause}"))
            else:
                raise
        except httptools.HttpParserError as error:
            self._refuse(400, BadRequest(f"{self.remote} sent what is not HTTP/1.1: {error}"))
        if self._started:
            self._head_bytes += count
            if self._in_head and self._head_bytes > MAX_HEADER + BUFFER:
                # The parser keeps one header's bytes until they are complete.
                self._refuse(431, TooLarge(self._header_over_limit()))
            elif self._slow is None:
                self._slow = self._loop.call_later(self._read_timeout, self._too_slow)
        elif self._slow is not None:
            self._slow.cancel()
            self._slow = None

    def eof_received(self) -> bool:
        return False

    def _too_slow(self) -> None:
        self._slow = None
        self._refuse(
            408,
            BadRequest(f"{self.remote} took over {self._read_timeout:g} s to send one message"),
        )

    def _refuse(self, status: int, error: Error) -> None:
        if not self._lost:
            logger.info("closing the connection: %s", error)
            self.shut(error)

    # What the parser calls

    def on_message_begin(self) -> None:
        self._started = self._in_head = True
        self._header = {}
        self._body = b""
        self._header_size = self._head_bytes = 0

    def on_header(self, raw: bytes, value: bytes) -> None:
        self._header_size += len(raw) + len(value)
        if self._header_size > MAX_HEADER or len(self._header) >= MAX_HEADERS:
            raise TooLarge(self._header_over_limit())
        name = _names.get(raw) or _name(raw)
        if name not in self._header:  # Go Micro takes the first of several
            self._header[name] = value.decode("utf-8", "replace")

    def on_headers_complete(self) -> None:
        self._in_head = False
        length = self._header.get("Content-Length")
        if length is not None and int(length) > self._max_message:
            raise TooLarge(self._over_limit())

    def on_body(self, data: bytes) -> None:
        if len(self._body) + len(data) > self._max_message:
            raise TooLarge(self._over_limit())
        if not self._body:
            self._body = data  # the ordinary case: it came in one piece
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data

    def _header_over_limit(self) -> str:
        return f"{self.remote} sent a header over the limit of {MAX_HEADER} bytes"

    def _over_limit(self) -> str:
        return f"{self.remote} sent a message over the limit of {self._max_message} bytes"

    def on_message_complete(self) -> None:
        self._started = False
        body = self._body
        self._received(Message(self._header, body if isinstance(body, bytes) else bytes(body)))

    def _received(self, message: Message) -> None:
        inbox = self._inbox
        inbox.put(message)
        if len(inbox.messages) > UNREAD and not self._paused and not self._lost:
            self._paused = True
            self._transport.pause_reading()

    # Encoding

    def _encode(self, message: Message) -> bytes:
        # What is the message's own comes first: a reader takes the first of two equal names.
        shared = message.shared
        body = message.body
        return b"%b%b%bContent-Length: %d\r\n\r\n%b" % (
            self._start,
            _encode_header(message.header),
            b"" if shared is None else _encode_shared(shared),
            len(body),
            body,
        )


class ClientSocket(HttpSocket):
    """The side that dialled: sends requests, receives responses."""

    def __init__(self, host: str, buffer: memoryview, max_message: int, timeout: float) -> None:
        super().__init__(buffer, max_message, timeout)
        host = clean(host)
        self._start = f"POST / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: shoal\r\n".encode()

    def _new_parser(self) -> Any:
        return httptools.HttpResponseParser(self)

    def _received(self, message: Message) -> None:
        status = self._parser.get_status_code()
        if status == 200:
            super()._received(message)
        elif status >= 200:
            text = message.body[:200].decode("utf-8", "replace").strip()
            self._refuse(
                status, ConnectionClosed(f"{self.remote} answered {status}: {text}".rstrip(": "))
            )


class ServerSocket(HttpSocket):
    """The side that accepted: receives requests, sends responses."""

    _start = b"HTTP/1.1 200 OK\r\n"
    _keep = True

    def __init__(
        self,
        accepted: Callable[[ServerSocket], None],
        buffer: memoryview,
        max_message: int,
        timeout: float,
    ) -> None:
        super().__init__(buffer, max_message, timeout)
        self._accepted = accepted

    def _new_parser(self) -> Any:
        return httptools.HttpRequestParser(self)

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # A connection on which nothing comes is not worth keeping.
        self._slow = self._loop.call_later(self._read_timeout, self._too_slow)
        self._accepted(self)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        header = self._header
        if header.get("Expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if header.get("Connection", "").lower() == "close":
            self._keep = False

    async def send(self, message: Message) -> None:
        await super().send(message)
        if not self._keep and not self._inbox.messages:
            self.shut(ConnectionClosed(f"{self.remote} asked to close the connection"))

    def _refuse(self, status: int, error: Error) -> None:
        if not self._lost:
            text = str(error).encode()
            self._transport.write(
                b"HTTP/1.1 %d %b\r\nContent-Type: text/plain\r\nConnection: close\r\n"
                b"Content-Length: %d\r\n\r\n%b"
                % (status, _REASONS[status].encode(), len(text), text)
            )
        super()._refuse(status, error)


_FRAMING = frozenset(
    ("Connection", "Content-Length", "Expect", "Host", "Transfer-Encoding", "Upgrade", "User-Agent")
)


def _encode_header(header: Mapping[str, str]) -> bytes:
    lines = []
    for name, value in header.items():
        if name not in _FRAMING:  # those are this connection's own
            if "\n" in value or "\r" in value:
                value = clean(value)
            lines.append(f"{_field(name)}: {value}\r\n")
    return "".join(lines).encode("utf-8", "replace")


def _field(name: str) -> str:
    try:
        return canonical(name)
    except ValueError as error:
        raise BadRequest(str(error), id="shoal.transport") from None


def _encode_shared(shared: Header) -> bytes:
    try:
        return shared.encoded
    except AttributeError:
        shared.encoded = _encode_header(shared)
        return shared.encoded


def _address(transport: Any, which: str) -> str:
    name = transport.get_extra_info(which)
    return join(name[0], name[1]) if isinstance(name, tuple) else str(name or "")
