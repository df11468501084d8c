"""probe_http: the least a Go Micro call over HTTP/1.1 can cost in Python: httptools, no framework.

Requests and replies carry the headers a Go Micro client and server send, in their order; both
sides look every header up by name, as a framework must.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import cast

import httptools

from bench import load

REQUEST = (
    b"POST / HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUser-Agent: Go-http-client/1.1\r\n"
    b"Content-Length: %%d\r\nAccept: application/json\r\nContent-Type: application/json\r\n"
    b"Micro-Endpoint: Greeter.Hello\r\nMicro-Id: %%d\r\nMicro-Method: Greeter.Hello\r\n"
    b"Micro-Service: greeter\r\nTimeout: 5000000000\r\n\r\n%%b\n"
)
ECHOED = (  # a Go Micro server answers with the headers it was asked with, sorted
    "accept",
    "content-type",
    "micro-endpoint",
    "micro-id",
    "micro-method",
    "micro-service",
    "timeout",
    "user-agent",
)
NAMES: dict[bytes, str] = {}


class Reader(asyncio.Protocol):
    """Collects the headers and the body of one message after the other."""

    parser_type: type[httptools.HttpRequestParser | httptools.HttpResponseParser]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        self.transport = cast("asyncio.Transport", transport)
        self.headers: dict[str, str] = {}
        self.body = b""
        self.parser = self.parser_type(self)

    def data_received(self, data: bytes) -> None:
        """Parses."""
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        """Starts anew."""
        self.headers = {}
        self.body = b""

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keeps a header; names are decoded once."""
        key = NAMES.get(name)
        if key is None:
            key = NAMES[name] = name.decode().lower()
        self.headers[key] = value.decode()

    def on_body(self, data: bytes) -> None:
        """Keeps the body."""
        self.body += data


class Server(Reader):
    """Answers as a Go Micro server does."""

    parser_type = httptools.HttpRequestParser
    head = b""

    def on_message_complete(self) -> None:
        """Routes by the endpoint, answers with the echo of the connection's first request."""
        if self.headers["micro-endpoint"] != "Greeter.Hello":
            raise LookupError(self.headers["micro-endpoint"])
        if not self.head:
            echo = "".join(f"{name.title()}: {self.headers[name]}\r\n" for name in ECHOED)
            self.head = echo.encode() + b"\r\n"
        reply = load.reply_body(self.body)
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b%b\n" % (len(reply) + 1, self.head, reply)
        )


class Connection(Reader):
    """A client's connection; one call is under way at a time."""

    parser_type = httptools.HttpResponseParser
    reply: asyncio.Future[bytes] | None = None

    def on_message_complete(self) -> None:
        """Wakes the caller."""
        if self.reply is None:
            raise ConnectionError("a reply nobody asked for")
        error = self.headers.get("micro-error")
        if error or self.headers["content-type"] != "application/json":
            self.reply.set_exception(RuntimeError(error or "a foreign content type"))
        else:
            self.reply.set_result(self.body)

    def connection_lost(self, error: Exception | None) -> None:
        """Fails the caller, if one waits."""
        if self.reply is not None and not self.reply.done():
            self.reply.set_exception(error or ConnectionResetError("the server closed"))

    async def exchange(self, request: bytes) -> bytes:
        """Sends a request and waits for the body of its reply."""
        self.reply = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await self.reply


@asynccontextmanager
async def serve() -> AsyncIterator[int]:
    """Serves until left."""
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def connect(port: int, concurrency: int) -> AsyncIterator[load.Call]:
    """A pool, last in first out."""
    loop = asyncio.get_running_loop()
    idle = [
        (await loop.create_connection(Connection, "127.0.0.1", port))[1] for _ in range(concurrency)
    ]
    request, numbers = REQUEST % port, count()

    async def call(name: str) -> str:
        connection = idle.pop()
        body = load.request_body(name)
        reply = await connection.exchange(request % (len(body) + 1, next(numbers), body))
        idle.append(connection)
        return load.decode_reply(reply).greeting

    yield call
    for connection in idle:
        connection.transport.close()


if __name__ == "__main__":
    load.main(serve, connect)
