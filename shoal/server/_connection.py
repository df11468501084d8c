"""Module _connection answers the requests of one accepted socket, one after another."""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from shoal import context, wire
from shoal.codec import Codec
from shoal.deadlines import Limit
from shoal.endpoints import Method
from shoal.errors import (
    BadRequest,
    ConnectionClosed,
    Error,
    NotFound,
    TooLarge,
    TooManyRequests,
    Unavailable,
)
from shoal.message import Message
from shoal.server._incoming import Incoming, late, unexpected
from shoal.server._isolated import isolated, resumed
from shoal.server._stream import ServerStream
from shoal.transport import Socket

if TYPE_CHECKING:
    from shoal.server.rpc import RpcServer

logger = logging.getLogger(__name__)

_enter_task, _leave_task = asyncio.tasks._enter_task, asyncio.tasks._leave_task

Begun = tuple[contextvars.Context, Coroutine[Any, Any, "Message | None"], Any]
"""An answer that waits for something: where it runs, what runs, what it waits for."""


class Connection:
    """Serves one socket in the task the transport made for it."""

    def __init__(self, server: RpcServer, socket: Socket) -> None:
        self._server = server
        self._socket = socket
        self._task = asyncio.current_task()
        self._base = contextvars.copy_context()
        self._begun: Begun | None = None
        self._when: float | None = None  # the time at which the last unary request must be over
        self._limit: Limit | None = None  # of one that was begun and waits
        self._running = False
        self._gone = False
        self._stream: ServerStream | None = None
        self._ended = ""  # the id of the last stream, of which some messages may still come
        self._header: dict[str, str] | None = None  # of the first request
        self._leaving = False

    async def serve(self) -> None:
        """Answer requests until the peer closes, or the server is stopped."""
        socket = self._socket
        socket.on_lost(self._lost)
        receive, base = socket.recv, self._base
        message = Message()
        try:
            while True:
                message = await receive()
                if self._header is None:
                    self._header = message.headers()
                    socket.on_message(self._take)
                self._running = True
                begun, self._begun = self._begun, None
                if begun is None:
                    reply = await isolated(base.copy(), self._answer(message))
                else:
                    context, coroutine, waiting = begun
                    reply = await resumed(coroutine, waiting, context.run)
                    self._unlimit()
                if reply is not None:
                    try:
                        await socket.send(reply)
                    except (BadRequest, TooLarge) as error:  # nothing went out: say why
                        header = message.header
                        failed = self._server.failed(header, error, self._codec(header))
                        await socket.send(failed)
                self._running = False
        except ConnectionClosed:
            return
        except asyncio.CancelledError:
            self._unlimit()
            if self._begun is not None:  # it cancelled its own task before it first waited
                context, coroutine, _ = self._begun
                context.run(coroutine.close)
            if self._leaving and self._task is not None and self._task.uncancel() == 0:
                await self._say_goodbye(message.headers() if self._running else None)
            elif not self._gone:
                raise
            else:
                logger.debug("%s went away while its request was running", socket.remote)

    def leave(self) -> asyncio.Task[None] | None:
        """Let the peer know that no request is taken here any more; return the task that does.

        What runs is cancelled, and its caller gets an error. A connection on which the first
        request has not come yet is left as it is: the request is on its way, and gets its answer.
        """
        if self._header is None or self._task is None:
            return None
        self._leaving = True
        self._task.cancel()
        return self._task

    async def _say_goodbye(self, header: dict[str, str] | None) -> None:
        """Answer what was cancelled, and what may be on its way and is not read any more.

        An unread request must not look like one that may have been handled. Go Micro would take
        such an answer for that to its next request, so it is closed to without.
        """
        server, socket = self._server, self._socket
        stopping = Unavailable(f"{server.name} is stopping", id=wire.SERVER)
        agent = (self._header or {}).get("User-Agent", "")
        try:
            if header is not None:
                await socket.send(server.failed(header, stopping, self._codec(header)))
            if agent in ("", wire.AGENT):
                await socket.send(wire.goodbye(stopping))
            while agent == wire.AGENT:
                # Closed with something unread, TCP could take back what was sent; the peer closes.
                await socket.recv()
        except Error:
            return

    def _take(self, message: Message) -> bool:
        """Answer a message without the way through the task, as long as no one has to wait.

        The handler sees the connection's task as its own, which waits for a message meanwhile;
        if something has to be waited for, that task goes on with it.
        """
        server, task = self._server, self._task
        known = server.known.get(id(message.shared))
        if known is None or task is None or self._begun is not None or not server.at_ease():
            return False
        _, method, codec, shared = known
        incoming = Incoming(method, codec, message.header, message.body, shared)
        context, coroutine = self._base.copy(), self._unary(incoming, taken=True)
        _enter_task(server.loop, task)
        try:
            waiting = context.run(coroutine.send, None)
        except StopIteration as stop:
            reply: Message | None = stop.value
            if reply is None or self._socket.try_send(reply):
                return True
            self._begun = context, _given(reply), None
        except asyncio.CancelledError:
            self._begun = context, _cancelled(), None
        else:
            self._begun = context, coroutine, waiting
            if self._when is not None:  # most do not wait, and need no limit
                self._limit = server.deadlines.until(self._when)
                self._limit.begin()
        finally:
            _leave_task(server.loop, task)
        return False

    def _unlimit(self) -> None:
        if self._limit is not None:
            self._limit.end()
            self._limit = None

    def _lost(self) -> None:
        self._gone = True
        if not self._running or self._task is None:
            return
        # Nobody waits for what is running; only who had sent a whole stream wants it done.
        if self._stream is None or not self._stream.all_came():
            self._task.cancel()

    # One request

    async def _answer(self, message: Message) -> Message | None:
        """Return the reply to a message of any kind; None if there is none to send."""
        server = self._server
        header = message.header
        if "Micro-Stream" in header and (
            header["Micro-Stream"] == self._ended or wire.error_in(header) == wire.EOS
        ):
            return None  # the rest of a stream that has ended here
        if "Micro-Topic" in header:
            return await self._event(message)
        try:
            incoming = self._incoming(message)
            if not server.admission.at_once or (
                not incoming.method.is_async and server.threads.full
            ):
                await self._turn(incoming)
            if server.running >= server.concurrency:
                raise TooManyRequests(f"over {server.concurrency} calls are running here already")
            if server.refusing:
                raise Unavailable(f"{server.name} is stopping")
        except Error as error:
            server.requests += 1
            error.id = error.id or wire.SERVER
            self._ended = header.get("Micro-Stream", "")
            reply = server.failed(header, error, self._codec(header))
            if isinstance(error, TooManyRequests | Unavailable):
                reply.header[wire.REFUSED] = "1"
            return reply
        if incoming.method.streams:
            return await self._streamed(incoming)
        if (
            message.shared is not None
            and incoming.method.is_async  # one for a thread may have to wait for it
            and incoming.id is None
        ):
            server.know(message.shared, incoming)
        return await self._unary(incoming)

    async def _streamed(self, incoming: Incoming) -> Message | None:
        """Run a stream and return the message that ends it."""
        server = self._server
        started = server.began()
        server.streams += 1
        self._stream = ServerStream(server, self._socket, incoming)
        try:
            return await self._stream.run()
        finally:
            server.streams -= 1
            self._ended = incoming.header.get("Micro-Stream", "")
            self._stream = None
            server.ended(incoming, started)

    async def _turn(self, incoming: Incoming) -> None:
        """Wait until the server has time for a request; raises TooManyRequests if that is late."""
        if incoming.method.name.startswith("Debug."):
            return  # who asks how an overloaded server does shall be told
        header = incoming.header
        seconds = wire.timeout(header)
        server = self._server
        waited = await server.admission.enter(seconds)
        if not incoming.method.is_async and server.threads.full:
            left = None if seconds is None else seconds - waited
            waited += await server.threads.line.wait(left)
        if waited and seconds is not None:
            header["Timeout"] = wire.timeout_value(seconds - waited)

    def _incoming(self, message: Message) -> Incoming:
        """Return what a request asks for; raises if that cannot be understood."""
        header, body = message.header, message.body
        server = self._server
        content_type = header.get("Content-Type") or wire.PROTOBUF
        name = header.get("Micro-Endpoint")
        if name is None or "Micro-Target" in header:
            name = wire.endpoint_of(header)
            if wire.is_legacy(header):
                content_type = wire.LEGACY.get(content_type, content_type)
        codec = server.codecs[content_type]
        functions = wire.envelope(codec)
        id: str | int | None = None
        if functions is not None:
            id = wire.id_of(header)
            if "Micro-Stream" not in header:
                envelope = functions.unpack_request(body)
                body, name, id = envelope.body, name or envelope.method, id or envelope.id
        method = server.methods.get(name)
        if method is None:
            raise _unknown(name, server.methods)
        shared = server.reply_header(codec.content_type)
        return Incoming(method, codec, header, body, shared, id)

    def _codec(self, header: dict[str, str]) -> Codec | None:
        """Return the codec of a request that failed early; None if it names an unknown one."""
        content_type = header.get("Content-Type") or wire.PROTOBUF
        if wire.is_legacy(header):
            content_type = wire.LEGACY.get(content_type, content_type)
        try:
            return self._server.codecs[content_type]
        except BadRequest:
            return None

    async def _unary(self, incoming: Incoming, *, taken: bool = False) -> Message:
        """Return the reply to a request that has one.

        What was `taken` gets its limit, for the time in `_when`, as soon as it waits.
        """
        header, method, codec = incoming.header, incoming.method, incoming.codec
        server = self._server
        limit: Limit | None = None
        started = server.began()
        timeout = wire.timeout(header)
        self._when = when = None if timeout is None else started + timeout
        context.current.set(context.Context(context.NO_METADATA, when, header))
        try:
            request = None
            if method.request is not None:
                request = codec.decode(incoming.body, method.request)
            if when is None or taken:
                reply = await server.run(method, request, header)
            else:
                with server.deadlines.until(when) as limit:
                    reply = await server.run(method, request, header)
            body = b"" if method.reply is None else codec.encode(reply)
        except Error as error:
            return server.failed(header, error, codec)
        except asyncio.CancelledError:
            if timeout is None or self._limit is None or not self._limit.end():
                raise
            return server.failed(header, late(method.name, timeout), codec)
        except TimeoutError as error:
            if timeout is None or limit is None or not limit.expired:
                return server.failed(header, unexpected(method.name, error), codec)
            return server.failed(header, late(method.name, timeout), codec)
        except Exception as error:
            return server.failed(header, unexpected(method.name, error), codec)
        finally:
            server.ended(incoming, started)
        if incoming.id is not None:
            body = wire.envelope(codec).pack_response(incoming.id, "", body)
        return Message(wire.reply_ids(header), body, incoming.shared)

    async def _event(self, message: Message) -> Message:
        """Deliver an event that came over the transport; Go Micro answers it with its headers."""
        try:
            await self._server.deliver(message.header["Micro-Topic"], message)
        except Error as error:
            return wire.error_reply(message.header, error)
        except Exception as error:
            return wire.error_reply(
                message.header, unexpected(message.header["Micro-Topic"], error)
            )
        return Message(dict(message.header))


async def _given(reply: Message) -> Message:
    return reply


async def _cancelled() -> None:
    raise asyncio.CancelledError


def _unknown(name: str, methods: dict[str, Method]) -> Error:
    kind, _, method = name.partition(".")
    if not kind or not method or "." in method:
        return BadRequest(f"rpc: service/endpoint request ill-formed: {name[:200]}")
    if any(known.startswith(f"{kind}.") for known in methods):
        return NotFound(f"rpc: can't find method {method[:200]}")
    return NotFound(f"rpc: can't find service {kind[:200]}")
