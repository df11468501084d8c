"""Module _stream is the client's side of an open stream."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any, Generic

from shoal import wire
from shoal.client import EndOfStream, Reply, Stream
from shoal.codec import Codec
from shoal.errors import ConnectionClosed, Error
from shoal.message import Header, Message
from shoal.transport import Socket


class RpcStream(Stream[Reply], Generic[Reply]):
    """A stream on a connection of its own."""

    def __init__(
        self,
        socket: Socket,
        codec: Codec,
        reply: Any,
        shared: Header,
        header: Mapping[str, str],
    ) -> None:
        self._socket = socket
        self._codec = codec
        self._reply = reply
        self._shared = shared
        self._header = dict(header)
        self._ended: Exception | None = None
        self._sent_end = False

    def __repr__(self) -> str:
        state = "ended" if self._ended else "half closed" if self._sent_end else "open"
        return f"<stream {self._shared['Micro-Endpoint']} to {self._socket.remote} {state}>"

    async def open(self) -> None:
        """Send the message that opens the stream; servers do not look at its body."""
        await self._put(b"")

    async def send(self, item: object) -> None:
        if self._ended is not None:
            raise ConnectionClosed("the stream has ended: the peer takes no more items")
        if self._sent_end:
            raise ConnectionClosed("close_send was called on this stream: it takes no more items")
        await self._put(self._codec.encode(item))

    async def _put(self, body: bytes) -> None:
        shared = self._shared
        packed = wire.pack_request(
            self._codec, self._header["Micro-Id"], shared["Micro-Endpoint"], body
        )
        await self._socket.send(Message(self._header, packed, shared))

    async def recv(self) -> Reply:
        if self._ended is not None:
            raise self._ended
        try:
            message = await self._socket.recv()
            if wire.error_in(message.header) == wire.EOS:
                raise EndOfStream
            body = wire.reply_body(message, self._shared["Content-Type"], self._codec)
            reply: Reply = self._codec.decode(body, self._reply)
            return reply
        except (Error, EndOfStream) as error:
            self._ended = error
            raise

    async def close_send(self) -> None:
        if not self._sent_end and self._ended is None:
            self._sent_end = True
            header = {**self._header, "Micro-Error": wire.EOS}
            await self._socket.send(Message(header, b"", self._shared))

    async def __aiter__(self) -> AsyncIterator[Reply]:
        while True:
            try:
                reply = await self.recv()
            except EndOfStream:
                return
            yield reply

    async def close(self) -> None:
        await self._socket.close()
