"""Module _stream runs a handler that streams, on the connection that is the stream's own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

from shoal import context, wire
from shoal.errors import BadRequest, ConnectionClosed, Error, from_wire
from shoal.message import Message
from shoal.server._incoming import Incoming, late, unexpected
from shoal.transport import Socket

if TYPE_CHECKING:
    from shoal.server.rpc import RpcServer

TURN = 32  # items that may be sent before others get a turn: a fast reader is never waited for

_REPEATED = ("Micro-Service", "Micro-Method", "Micro-Endpoint", "Micro-Stream")


class ServerStream:
    """One open stream: the items that come in, as an iterator, and the replies that go out."""

    def __init__(self, server: RpcServer, socket: Socket, incoming: Incoming) -> None:
        self._server = server
        self._socket = socket
        self._incoming = incoming
        self._envelope = wire.envelope(incoming.codec)
        self._sent = 0
        self._rest: deque[Message] = deque()
        self._ended = False
        self._receiving = False
        self._rest_reader: asyncio.Task[None] | None = None
        header = incoming.header
        self._reply = {name: header[name] for name in _REPEATED if name in header}
        self._reply.update(wire.reply_ids(header))

    async def run(self) -> Message:
        """Run the handler and return the message that ends the stream.

        Raises ConnectionClosed if the client went away before it had said all.
        """
        server, incoming = self._server, self._incoming
        header, name = incoming.header, incoming.method.name
        timeout = wire.timeout(header)
        if header.get("User-Agent", "").startswith("Go-http-client"):
            timeout = None  # Go Micro v1 sends its 5 s with every stream and does not mean it
        when = None if timeout is None else server.loop.time() + timeout
        context.current.set(context.Context(context.NO_METADATA, when, header))
        try:
            with nullcontext() if when is None else server.deadlines.until(when):
                await self._handle()
        except ConnectionClosed:
            raise
        except Error as error:
            return server.failed(header, error, incoming.codec)
        except TimeoutError as error:
            if when is None or server.loop.time() < when:
                return server.failed(header, unexpected(name, error), incoming.codec)
            return server.failed(header, late(name, timeout or 0.0), incoming.codec)
        except Exception as error:
            return server.failed(header, unexpected(name, error), incoming.codec)
        finally:
            if self._rest_reader is not None:
                self._rest_reader.cancel()
                await asyncio.gather(self._rest_reader, return_exceptions=True)
        return wire.error_reply(header, wire.EOS, incoming.codec)

    async def _handle(self) -> None:
        method = self._incoming.method
        request: Any = None
        if method.streams_in:
            request = self
        elif method.request is not None:
            # The body of the opening message is nobody's; the request comes after it.
            try:
                request = await self.__anext__()
            except StopAsyncIteration:
                raise BadRequest("the stream ended before its request came") from None
        result = await self._server.run(method, request, self._incoming.header)
        if not method.streams_out:
            await self._send(result)
            return
        try:
            async for item in result:
                await self._send(item)
        finally:
            # The handler's clean-up runs now, not when the collector finds it.
            close = getattr(result, "aclose", None)
            if close is not None:
                await close()

    async def _send(self, item: Any) -> None:
        incoming = self._incoming
        body = incoming.codec.encode(item)
        if self._envelope is not None:
            body = self._envelope.pack_response(incoming.id, "", body)
        message = Message(self._reply, body, incoming.shared)
        if not self._socket.try_send(message):
            await self._socket.send(message)
        self._sent += 1
        if self._sent % TURN == 0:
            await asyncio.sleep(0)

    # The items the client sends

    def __aiter__(self) -> AsyncIterator[Any]:
        return self

    async def __anext__(self) -> Any:
        if self._ended:
            raise StopAsyncIteration
        if self._rest:
            message = self._rest.popleft()
        else:
            self._receiving = True
            try:
                message = await self._socket.recv()
            except ConnectionClosed:
                if "Micro-Stream" in self._incoming.header:
                    raise  # half an input must not be taken for all of it
                self._ended = True  # Go Micro up to v1.8 ends its stream by closing
                raise StopAsyncIteration from None
            finally:
                self._receiving = False
        text = wire.error_in(message.header)
        if text == wire.EOS:
            self._ended = True
            # Clients ask now and then whether it is over. Unread, that would stop the connection.
            self._rest_reader = asyncio.get_running_loop().create_task(self._drop_rest())
            raise StopAsyncIteration
        if text:
            raise from_wire(text)
        body = message.body
        if self._envelope is not None:
            body = self._envelope.unpack_request(body).body
        return self._incoming.codec.decode(body, self._incoming.method.request)

    def all_came(self) -> bool:
        """Whether the client, which is gone now, had sent all of its stream or is being read.

        Who reads finds out by itself. What had arrived unread is looked through for the end.
        """
        if not self._incoming.method.streams_in:
            return False
        if self._ended or self._receiving:
            return True
        drain = self._drain()
        try:
            drain.send(None)  # with the peer gone nothing is waited for
        except StopIteration:
            pass
        else:
            drain.close()
        return any(wire.error_in(message.header) == wire.EOS for message in self._rest)

    async def _drop_rest(self) -> None:
        with suppress(ConnectionClosed):
            while True:
                await self._socket.recv()

    async def _drain(self) -> None:
        try:
            while True:
                self._rest.append(await self._socket.recv())
        except Error:
            return
