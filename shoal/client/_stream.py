"""Module _stream is the client's side of an open stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from typing import Any, Generic

from shoal import wire
from shoal.client import EndOfStream, Reply, Request, Stream
from shoal.codec import Codec
from shoal.errors import ConnectionClosed, Error, Timeout
from shoal.message import Header, Message
from shoal.transport import Socket

TURN = 32  # items that may be sent before others get a turn: a fast reader is never waited for
QUIET = 0.05  # seconds without a message before a stream that was half closed is asked after
PATIENCE = 5.0  # the longest time between two such questions


class RpcStream(Stream[Reply], Generic[Reply]):
    """A stream on a connection of its own."""

    def __init__(
        self,
        socket: Socket,
        codec: Codec,
        reply: Any,
        shared: Header,
        header: Mapping[str, str],
        *,
        tells_end: bool,
    ) -> None:
        self._socket = socket
        self._tells_end = tells_end
        self._envelope = wire.envelope(codec)
        self._plain: Header | None = None  # what a good reply shared: who shares it is as good
        self._codec = codec
        self._reply = reply
        self._shared = shared
        self._header = dict(header)
        self._ended: Exception | None = None
        self._sent_end = False
        self._count = 0  # items that were sent
        self._heard = 0  # messages that came
        self._asking: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._late: Error | None = None
        self._ending: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "ended" if self._ended else "half closed" if self._sent_end else "open"
        return f"<stream {self._shared['Micro-Endpoint']} to {self._socket.remote} {state}>"

    async def open(self) -> None:
        """Send the message that opens the stream; servers do not look at its body."""
        await self._put(b"")

    def expire_at(self, when: float, started: float, request: Request[Any]) -> None:
        """End the stream at a time of the loop: who sends or receives then gets Timeout."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_at(when, self._expire, when, started, request)

    def _expire(self, when: float, started: float, request: Request[Any]) -> None:
        self._timer = None
        if self._ended is None:
            loop = asyncio.get_running_loop()
            self._late = self._ended = late(request, when - started, loop.time() - started)
            self._ending = loop.create_task(self._socket.close())

    async def send(self, item: object) -> None:
        if self._late is not None:
            raise self._late
        if self._ended is not None:
            raise ConnectionClosed("the stream has ended: the peer takes no more items")
        if self._sent_end:
            raise ConnectionClosed("close_send was called on this stream: it takes no more items")
        try:
            await self._put(self._codec.encode(item))
            self._count += 1
            if self._count % TURN == 0:
                await asyncio.sleep(0)
        except ConnectionClosed:
            if self._late is not None:
                raise self._late from None
            raise

    async def _put(self, body: bytes) -> None:
        shared = self._shared
        if self._envelope is not None:
            id, endpoint = self._header["Micro-Id"], shared["Micro-Endpoint"]
            body = self._envelope.pack_request(id, endpoint, body)
        message = Message(self._header, body, shared)
        if not self._socket.try_send(message):
            await self._socket.send(message)

    async def recv(self) -> Reply:
        if self._ended is not None:
            raise self._ended
        try:
            message = await self._receive()
            body, shared = message.body, message.shared
            if shared is None or shared is not self._plain:
                if wire.error_in(message.header) == wire.EOS:
                    raise EndOfStream
                body = wire.reply_body(message, self._shared["Content-Type"], self._codec)
                self._plain = shared if self._envelope is None else None
            reply: Reply = self._codec.decode(body, self._reply)
            return reply
        except (Error, EndOfStream) as error:
            if self._late is not None:
                raise self._late from None
            self._ended = error
            raise

    async def close_send(self) -> None:
        if not self._sent_end and self._ended is None:
            self._sent_end = True
            header = {**self._header, "Micro-Error": wire.EOS}
            await self._socket.send(Message(header, b"", self._shared))
            if not self._tells_end:
                self._asking = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        """Ask whether the stream is over as long as nothing comes.

        A Go Micro server (v1 to v6) says nothing at the end of a stream whose handler has read
        the client's end; only to a message for a stream it no longer has does it answer.
        """
        header = {**self._header, **wire.END_QUESTION}
        wait = QUIET
        with suppress(ConnectionClosed):
            while True:
                heard = self._heard
                await asyncio.sleep(wait)
                if heard != self._heard:
                    wait = QUIET
                    continue
                await self._socket.send(Message(header, b"", self._shared))
                wait = min(2 * wait, PATIENCE)

    async def _receive(self) -> Message:
        """Return the next message that is no answer to what this side asked."""
        message = await self._socket.recv()
        while self._asking is not None and wire.is_end_answer(message):
            try:
                # Items may be under way still: the answer comes from another thread of the server.
                async with asyncio.timeout(QUIET):
                    message = await self._socket.recv()
            except TimeoutError:
                raise EndOfStream from None
        self._heard += 1
        return message

    async def __aiter__(self) -> AsyncIterator[Reply]:
        while True:
            try:
                reply = await self.recv()
            except EndOfStream:
                return
            yield reply

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        try:
            if self._asking is not None:
                self._asking.cancel()
                await asyncio.gather(self._asking, return_exceptions=True)
        finally:
            await (self._ending or self._socket.close())


def late(request: Request[Any], limit: float, elapsed: float) -> Timeout:
    """Return the error for a stream whose time, in seconds, is over."""
    return Timeout(
        f"the stream {request.service} {request.endpoint} was not over by its deadline of"
        f" {limit:.3g} s, after {elapsed:.3f} s",
        id=wire.CLIENT,
    )
