"""Module _exchange sends one request on one connection, and takes the reply."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from shoal import wire
from shoal.client import Request
from shoal.client._call import Target
from shoal.client._pool import Pool
from shoal.errors import ConnectionClosed, Error
from shoal.message import Message
from shoal.registry import Node
from shoal.transport import Socket

TARGETS = 4096  # kept

Key = tuple[str, str, type, str, "str | None"]
"""Service, endpoint, type of the message, content type asked for, protocol of the node."""


class Exchanges:
    """The exchanges of a client, on the connections of its pool."""

    def __init__(self, pool: Pool, codecs: wire.Codecs) -> None:
        self.pool = pool
        self.ids = itertools.count()
        self._codecs = codecs
        self._targets: dict[Key, Target] = {}

    def __repr__(self) -> str:
        return f"Exchanges({self.pool!r})"

    def start(
        self, request: Request[Any], node: Node, timeout: str, metadata: Mapping[str, str]
    ) -> tuple[Target, Message, Socket | None, Socket | None]:
        """Send a request on an idle connection: the third is that one.

        If it has to be waited for that the third is None, and the fourth what is idle, if any is.
        """
        target = self.target(request, node)
        body = target.codec.encode(request.message)
        socket = self.pool.take(node.address)
        if socket is None or socket.numbered or target.enveloped:
            id = str(next(self.ids))
            header = {"Micro-Id": id, "Timeout": timeout}
            if target.enveloped:
                body = wire.envelope(target.codec).pack_request(id, request.endpoint, body)
        else:
            header = {"Timeout": timeout}
        if metadata:
            header = {**metadata, **header}
        message = Message(header, body, target.shared)
        if socket is not None and socket.try_send(message):
            return target, message, socket, None
        return target, message, None, socket

    async def send(
        self, message: Message, service: str, node: Node, socket: Socket | None
    ) -> Socket:
        """Send a request that `socket` could not send at once, and return what has sent it.

        That is a new connection if there was none.
        """
        try:
            if socket is None:
                socket = await self.dial(service, node)
            try:
                await socket.send(message)
            except ConnectionClosed as error:
                if not error.unsent:
                    raise
                # It was closed while it was idle, before this call touched it.
                self.pool.drop(socket)
                socket = None
                socket = await self.dial(service, node)
                await socket.send(message)
        except BaseException as error:
            self.end(socket, service, error)
            raise
        return socket

    def end(self, socket: Socket | None, service: str, error: BaseException) -> None:
        """Give up the connection of an attempt that failed with this error, if it has one."""
        if socket is None:
            return
        self.pool.drop(socket)
        if isinstance(error, ConnectionClosed):
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
        key = (
            request.service,
            request.endpoint,
            type(request.message),
            request.content_type,
            node.metadata.get("protocol"),
        )
        return self._targets.get(key) or self._new_target(key, request, node)

    def _new_target(self, key: Key, request: Request[Any], node: Node) -> Target:
        content_type = request.content_type or self._codecs.content_type(request.message)
        content_type = wire.node_content_type(content_type, node.metadata)
        codec = self._codecs[content_type]
        enveloped = wire.envelope(codec) is not None
        shared = wire.request_header(request.service, request.endpoint, content_type)
        target = Target(shared, codec, content_type, enveloped)
        if len(self._targets) < TARGETS:
            self._targets[key] = target
        return target
