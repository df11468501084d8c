"""Module _http_sockets is HTTP/1.1 connections for events: requests with a target, and a status."""

from __future__ import annotations

import http
from typing import Any
from urllib.parse import parse_qs, urlsplit

from shoal.errors import BadRequest, ConnectionClosed
from shoal.message import Header, Message
from shoal.transport._http1 import (
    MAX_HEADER,
    ClientSocket,
    HttpSocket,
    Refused,
    ServerSocket,
)
from shoal.transport.http import HttpTransport

# What HTTP has besides header and body is kept under names that no header can have.
METHOD, TARGET, STATUS = ":method", ":target", ":status"

_JSON = Header({"Content-Type": "application/json"})
_TEXT = Header({"Content-Type": "text/plain; charset=utf-8"})
_NOTHING = Header()


class EventTransport(HttpTransport):
    """Dials and accepts connections for events."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(native=False, **settings)

    def _dialled(self, address: str) -> ClientSocket:
        return PostSocket(address, self._buffer, self._max_message, self._read_timeout)

    def _accepted(self) -> ServerSocket:
        return EventSocket(self._buffer, self._max_message, self._read_timeout)


class PostSocket(ClientSocket):
    """A publisher's connection: one post at a time."""

    _knowable = 0  # the status of each answer is needed

    def __init__(self, host: str, buffer: memoryview, max_message: int, timeout: float) -> None:
        super().__init__(host, buffer, max_message, timeout)
        self._host = self._start.partition(b"\r\n")[2]

    @property
    def reusable(self) -> bool:
        """Whether it is open and nothing came that nobody asked for."""
        return not self._lost and not self._inbox.messages

    async def post(self, target: str, body: bytes) -> tuple[int, bytes]:
        """Return the status and body of the answer. Raises what sockets raise."""
        self._start = b"POST %b HTTP/1.1\r\n%b" % (target.encode(), self._host)
        await self.send(Message({}, body, _JSON))
        answer = await self.recv()
        return int(answer.header[STATUS]), answer.body

    def abort(self) -> None:
        """Close at once, whatever the peer does."""
        self._lost = True
        self._transport.abort()

    def _parsed(self, message: Message) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            return  # it announces a response
        message.header[STATUS] = str(status)
        if message.header.get("Connection", "").lower() == "close":
            self.shut(ConnectionClosed(f"{self.remote} asked to close the connection"))
        HttpSocket._parsed(self, message)


class EventSocket(ServerSocket):
    """A subscriber's connection: requests carry method and target, answers a status."""

    _knowable = 0  # the target of each request is needed
    _target = b""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._target = b""

    def on_url(self, data: bytes) -> None:
        """Take a piece of the target; httptools calls this."""
        self._target += data
        if len(self._target) > MAX_HEADER:
            raise Refused(431, self._header_over_limit())

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._header[METHOD] = self._parser.get_method().decode("latin-1")
        self._header[TARGET] = self._target.decode("latin-1")

    async def answer(self, status: int, text: str = "") -> None:
        """Answer a request. Raises ConnectionClosed when the peer is gone."""
        reason = http.HTTPStatus(status).phrase
        self._start = f"HTTP/1.1 {status} {reason}\r\n".encode()
        await self.send(Message({}, text.encode(), _TEXT if text else _NOTHING))


def query(target: str, name: str) -> str:
    """Return a value of a request target's query, empty if it has none.

    Raises BadRequest for a target that is none.
    """
    try:
        values = parse_qs(urlsplit(target).query, max_num_fields=16)
    except ValueError as error:
        raise BadRequest(f"{target[:100]!r} is no request target: {error}") from None
    return values.get(name, [""])[0]
