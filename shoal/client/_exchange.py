"""Module _exchange sends one request on one connection, and takes the reply."""

from __future__ import annotations

import itertools
from typing import Any

from shoal import wire
from shoal.client import Request
from shoal.client._call import Attempts, Target
from shoal.client._pool import Pool
from shoal.errors import ConnectionClosed, Error
from shoal.message import Message
from shoal.registry import Node
from shoal.transport import Socket

TARGETS = 4096  # kept
MOMENT = 0.0005  # seconds that `Timeout` does not tell


class Exchanges:
    """The exchanges of a client, on the connections of its pool."""

    def __init__(self, pool: Pool, codecs: wire.Codecs) -> None:
        self.pool = pool
        self.ids = itertools.count()
        self._codecs = codecs
        self._targets: dict[tuple[str, str, type, str, str | None], Target] = {}

    def __repr__(self) -> str:
        return f"Exchanges({self.pool!r})"

    async def run(self, node: Node, attempts: Attempts, now: float) -> Any:
        """Send one request to one node and return its reply."""
        socket = self.sent(node, attempts, now) or await self.send(node, attempts)
        return self.replied(await socket.recv(), node, attempts, now)

    def sent(self, node: Node, attempts: Attempts, now: float) -> Socket | None:
        """Send the request; return None if that has to wait for something, and was not done."""
        request = attempts.request
        target = attempts.target = self.target(request, node)
        body = target.codec.encode(request.message)
        timeout = attempts.timeout
        if not timeout or now >= attempts.started + MOMENT:
            timeout = wire.timeout_value(attempts.until - now)
        socket = attempts.socket = self.pool.take(node.address)
        if socket is None or socket.numbered or target.enveloped:
            id = str(next(self.ids))
            header = {"Micro-Id": id, "Timeout": timeout}
            if target.enveloped:
                body = wire.envelope(target.codec).pack_request(id, request.endpoint, body)
        else:
            header = {"Timeout": timeout}
        if attempts.metadata:
            header = {**attempts.metadata, **header}
        message = Message(header, body, target.shared)
        if socket is not None and socket.try_send(message):
            return socket
        attempts.message = message
        return None

    async def send(self, node: Node, attempts: Attempts) -> Socket:
        """Send the request that `sent` has made, on a new connection if there was none."""
        socket, message, service = attempts.socket, attempts.message, attempts.request.service
        assert message is not None
        if socket is None:
            socket = attempts.socket = await self.dial(service, node)
        try:
            await socket.send(message)
        except ConnectionClosed as error:
            if not error.unsent:
                raise
            # It was closed while it was idle, before this call touched it.
            socket = attempts.socket = await self.dial(service, node)
            await socket.send(message)
        return socket

    def replied(self, reply: Message, node: Node, attempts: Attempts, now: float) -> Any:
        """Return what the reply holds; the connection is free for the next call."""
        socket, target = attempts.socket, attempts.target
        assert socket is not None
        assert target is not None
        attempts.socket = None
        self.pool.give(node.address, socket, now)
        return target.read(reply, attempts.request.reply)

    def end(self, attempts: Attempts, error: BaseException) -> None:
        """Give up the connection of an attempt that failed with this error, if it has one."""
        socket, attempts.socket = attempts.socket, None
        if socket is None:
            return
        self.pool.drop(socket)
        if isinstance(error, ConnectionClosed):
            service = attempts.request.service
            error.detail = f"{service} at {socket.remote}: {error.detail}"

    async def dial(self, service: str, node: Node) -> Socket:
        try:
            return await self.pool.dial(node)
        except Error as error:
            error.unsent = True
            error.detail = f"{service}: {error.detail}"
            raise

    def target(self, request: Request[Any], node: Node) -> Target:
        """Return what requests to this endpoint have in common, as this node wants it."""
        service, endpoint, content_type = request.service, request.endpoint, request.content_type
        kind, protocol = type(request.message), node.metadata.get("protocol")
        key = (service, endpoint, kind, content_type, protocol)
        target = self._targets.get(key)
        if target is None:
            content_type = content_type or self._codecs.content_type(request.message)
            content_type = wire.node_content_type(content_type, node.metadata)
            codec = self._codecs[content_type]
            enveloped = wire.envelope(codec) is not None
            shared = wire.request_header(service, endpoint, content_type)
            target = Target(shared, codec, content_type, enveloped)
            if len(self._targets) < TARGETS:
                self._targets[key] = target
        return target
