"""Module _http1 is one HTTP/1.1 connection as a socket: each message a request, or a response.

The framing is Go Micro's (transport/http of v1 to v6): the client's messages are requests, the
server's are responses, and the two are not paired; a stream sends any number of either.
"""

from __future__ import annotations

import logging
from typing import Any

import httptools

from shoal.errors import BadRequest, ConnectionClosed, Error, TooLarge
from shoal.message import Message, clean
from shoal.transport._connection import Connection
from shoal.transport._header import _names, encode_message, read_name
from shoal.transport._heads import LARGEST, Head, known, learn, like

logger = logging.getLogger(__name__)

MAX_HEADER = 64 * 1024  # bytes of names and values
MAX_HEADERS = 256
BUFFER = 256 * 1024
_REASONS = {400: "Bad Request", 408: "Request Timeout", 413: "Content Too Large",
            431: "Request Header Fields Too Large"}  # fmt: skip


class Refused(Exception):
    """What a callback of the parser raises to end the connection, with the status to answer."""

    def __init__(self, status: int, error: Error) -> None:
        super().__init__(str(error))
        self.status = status
        self.error = error


class HttpSocket(Connection):
    """A connection that carries HTTP/1.1, either side of it."""

    _start: bytes  # what every message of this side begins with
    _ordinary: bytes  # what an ordinary message of the other side begins with
    _knowable = LARGEST  # bytes of a message whose head may be known again
    _last = False  # the peer said that this message is its last one
    _deaf = False  # and it has come: whatever follows is nobody's

    def __init__(self, buffer: memoryview, max_message: int, read_timeout: float) -> None:
        super().__init__(buffer, max_message)
        self._read_timeout = read_timeout
        self._started = False  # a message has begun to arrive
        self._more = 0  # bytes that came of it after the first piece
        self._header: dict[str, str] = {}
        self._head = self._header  # the same once it is complete
        self._header_size = 0
        self._body: bytes | bytearray = b""
        self._usual: Head | None = None
        self._whole = b""  # what may be one message, whose head can be learnt
        self._parser: Any = self._new_parser()

    def _new_parser(self) -> Any:
        raise NotImplementedError

    # What the loop calls

    def data_received(self, data: bytes) -> None:
        if self._lost or self._deaf:
            return
        if not self._started and len(data) <= self._knowable:
            usual = self._usual  # most messages of a connection are for one endpoint
            if usual is None or not data.startswith(usual.start):
                usual = self._usual = known(data)
            message = None if usual is None else like(usual, data)
            if message is not None and len(message.body) <= self._max_message:
                if self._timer is not None:
                    self._cancel_timer()
                self._arrived(message)
                return
            self._whole = data
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, self._wants_another())
        except httptools.HttpParserError as error:
            self._broken(data[:4], error)
        if self._started and not self._lost and not self._deaf:
            self._incomplete(len(data))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._parser = None  # which refers to this

    def _parsed(self, message: Message) -> None:
        self._arrived(message)

    # What a peer does wrong

    def _incomplete(self, count: int) -> None:
        """Bound the time a message takes, and the bytes the parser may keep of it."""
        if self._timer is None:
            self._timer = self._loop.call_later(self._read_timeout, self._too_slow)
            self._more = 0  # the first piece is bounded by the buffer
            return
        self._more += count
        if self._more > MAX_HEADER + 2 * len(self._body):
            # An endless header, or more of chunk sizes and trailers than of what is in them.
            self._refuse(431, self._header_over_limit())

    def _too_slow(self) -> None:
        self._timer = None
        limit = f"{self._read_timeout:g} s"
        if self._started:
            self._refuse(408, BadRequest(f"{self.remote} took over {limit} to send one message"))
        else:
            self.shut(ConnectionClosed(f"{self.remote} sent nothing within {limit}"))

    def _broken(self, start: bytes, error: httptools.HttpParserError) -> None:
        cause = error.__context__
        if not isinstance(error, httptools.HttpParserCallbackError):
            self._refuse(400, BadRequest(f"{self.remote} sent {_guess(start, error)}"))
        elif isinstance(cause, Refused):
            self._refuse(cause.status, cause.error)
        elif isinstance(cause, ValueError):
            self._refuse(400, BadRequest(f"{self.remote} sent a bad header: {cause}"))
        else:
            raise cause or error

    def _refuse(self, status: int, error: Error) -> None:
        if not self._lost:
            logger.info("closing the connection: %s", error)
            self.shut(error, drain=True)

    def _header_over_limit(self) -> Error:
        return TooLarge(f"{self.remote} sent a header over the limit of {MAX_HEADER} bytes")

    def _over_limit(self) -> Error:
        return TooLarge(f"{self.remote} sent a message over the limit of {self._max_message} bytes")

    def _wants_another(self) -> Error:
        return BadRequest(f"{self.remote} wants another protocol, and this speaks only HTTP/1.1")

    # What the parser calls

    def on_message_begin(self) -> None:
        self._started = True
        self._header = {}
        self._body = b""
        self._header_size = 0

    def on_header(self, raw: bytes, value: bytes) -> None:
        self._header_size += len(raw) + len(value)
        if self._header_size > MAX_HEADER or len(self._header) >= MAX_HEADERS:
            raise Refused(431, self._header_over_limit())
        name = _names.get(raw) or read_name(raw)
        if name not in self._header:  # Go Micro takes the first of several
            self._header[name] = value.strip().decode("utf-8", "replace")

    def on_headers_complete(self) -> None:
        self._head = self._header
        length = self._header.get("Content-Length")
        if length is not None and int(length) > self._max_message:
            raise Refused(413, self._over_limit())

    def on_chunk_header(self) -> None:
        if self._header is self._head:
            self._header = {}  # for trailers, which are nobody's

    def on_body(self, data: bytes) -> None:
        if len(self._body) + len(data) > self._max_message:
            raise Refused(413, self._over_limit())
        if not self._body:
            self._body = data  # the ordinary case: it came in one piece
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data

    def on_message_complete(self) -> None:
        self._started = False
        if self._timer is not None:
            self._cancel_timer()
        if self._whole.startswith(self._ordinary):
            learn(self._whole, self._head)
        self._whole = b""
        body = self._body
        self._parsed(Message(self._head, body if isinstance(body, bytes) else bytes(body)))
        if self._last:
            self._deaf = True
            self._inbox.end(ConnectionClosed(f"{self.remote} asked to close the connection"))

    # Encoding

    def _encode(self, message: Message) -> bytes:
        return encode_message(self._start, message)


class ClientSocket(HttpSocket):
    """The side that dialled: sends requests, receives responses."""

    _ordinary = b"HTTP/1.1 200 OK\r\n"

    def __init__(self, host: str, buffer: memoryview, max_message: int, timeout: float) -> None:
        super().__init__(buffer, max_message, timeout)
        host = clean(host)
        self._start = f"POST / HTTP/1.1\r\nHost: {host}\r\nUser-Agent: shoal\r\n".encode()

    def _new_parser(self) -> Any:
        return httptools.HttpResponseParser(self)

    def _parsed(self, message: Message) -> None:
        status = self._parser.get_status_code()
        if status == 200:
            if message.header.get("Connection", "").lower() == "close":
                # Before it is handed over, so that nobody sends anything after it.
                self.shut(ConnectionClosed(f"{self.remote} asked to close the connection"))
            super()._parsed(message)
        elif status >= 200:  # the others announce a response
            text = message.body[:500].decode("utf-8", "replace").strip()
            detail = f"{self.remote} answered {status}: {text}".rstrip(": ")
            raise Refused(status, _ANSWERS.get(status, ConnectionClosed)(detail))

    def eof_received(self) -> bool:
        if self._started and not self._lost and self._ends_with_connection():
            try:
                self.on_message_complete()
            except Refused as refused:
                self._refuse(refused.status, refused.error)
        return super().eof_received()

    def _ends_with_connection(self) -> bool:
        """Whether a response has begun that says neither its length nor that it is chunked."""
        return self._head is self._header and "Content-Length" not in self._head


# Who answers these says something of the request; others may come from anything in between.
_ANSWERS: dict[int, type[Error]] = {400: BadRequest, 413: TooLarge, 431: TooLarge}


class ServerSocket(HttpSocket):
    """The side that accepted: receives requests, sends responses."""

    _start = b"HTTP/1.1 200 OK\r\n"
    _ordinary = b"POST / HTTP/1.1\r\n"

    def _new_parser(self) -> Any:
        parser = httptools.HttpRequestParser(self)
        # HTTP/1.0 stays open too, and what follows a `Connection: close` is not an error.
        parser.set_dangerous_leniencies(lenient_keep_alive=True)
        return parser

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # A connection on which nothing comes is not worth keeping.
        self._timer = self._loop.call_later(self._read_timeout, self._too_slow)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        header = self._header
        if self._parser.should_upgrade():
            raise Refused(400, self._wants_another())  # the parser takes no body after this
        if header.get("Connection", "").lower() == "close":
            self._last = True
        if header.get("Expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _refuse(self, status: int, error: Error) -> None:
        if self._deaf:
            return
        if not self._lost:
            text = str(error).encode()
            self._transport.write(
                b"HTTP/1.1 %d %b\r\nContent-Type: text/plain; charset=utf-8\r\n"
                b"Connection: close\r\nContent-Length: %d\r\n\r\n%b"
                % (status, _REASONS[status].encode(), len(text), text)
            )
        super()._refuse(status, error)


def _guess(start: bytes, error: Exception) -> str:
    """Return what a peer sent that is not HTTP/1.1."""
    if start[:2] in (b"\x16\x03", b"\x15\x03"):
        return "TLS where none is expected: one side has tls settings and the other has not"
    if start == b"PRI ":
        return "HTTP/2, and this speaks only HTTP/1.1 (a gRPC peer, perhaps)"
    return f"what is not HTTP/1.1: {error}"
