"""Module _http_receiver listens for events that publishers post (Go Micro v6, broker/http)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from shoal.broker._envelope import decode, received
from shoal.broker._http_sockets import METHOD, TARGET, EventSocket, EventTransport, query
from shoal.broker._local import Line, put
from shoal.errors import (
    BadRequest,
    Error,
    InternalServerError,
    NotFound,
    TooLarge,
    Unavailable,
    to_wire,
)
from shoal.message import Message
from shoal.tls import Tls
from shoal.transport import Listener, Socket

logger = logging.getLogger(__name__)

CONNECTIONS = 1024  # at a time
ID = "go.micro.broker"  # what Go Micro's own errors carry

Find = Callable[[str, str], Sequence[Line]]
"""Returns the lines for a node's id and a topic, empty if there are none."""


class Receiver:
    """A listener that puts posted events into the lines of their subscribers."""

    def __init__(self, find: Find, *, tls: Tls | None, max_message: int, timeout: float) -> None:
        # An event is a third longer in base64, and its header stands in the body too.
        limit = max_message * 4 // 3 + 128 * 1024
        self._transport = EventTransport(tls=tls, max_message=limit, read_timeout=timeout)
        self._max_message = max_message
        self._find = find
        self._listener: Listener | None = None
        self._connections = 0

    def __repr__(self) -> str:
        return f"Receiver({self.address!r}, connections={self._connections})"

    @property
    def address(self) -> str:
        """Where it listens, empty if it does not."""
        return self._listener.address if self._listener is not None else ""

    async def listen(self, address: str) -> None:
        """Listen, unless it does. Raises what transports raise."""
        if self._listener is None:
            self._listener = await self._transport.listen(address, self._serve)

    async def close(self) -> None:
        """Stop listening and close all connections."""
        listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close()

    async def _serve(self, socket: Socket) -> None:
        assert isinstance(socket, EventSocket)
        if self._connections >= CONNECTIONS:
            logger.warning("no connection for %s: %d are open", socket.remote, self._connections)
            return
        self._connections += 1
        try:
            while True:
                status, text = await self._answer(await socket.recv(), socket.remote)
                await socket.answer(status, text)
        finally:
            self._connections -= 1

    async def _answer(self, request: Message, remote: str) -> tuple[int, str]:
        """Return status and text for a request; errors have the form of Go Micro's."""
        if request.header[METHOD] != "POST":
            return 405, to_wire(BadRequest("Method not allowed", id=ID))
        try:
            await self._take(request)
        except Error as error:
            logger.warning("an event from %s was not taken: %s", remote, error)
            return error.code, to_wire(error)
        return 200, ""

    async def _take(self, request: Message) -> None:
        id = query(request.header[TARGET], "id")
        try:
            event = decode(request.body)
        except BadRequest as error:
            raise InternalServerError(f"Error parsing request body: {error}", id=ID) from None
        if len(event.body) > self._max_message:
            raise TooLarge(f"the event is over the limit of {self._max_message} bytes", id=ID)
        topic = _topic(event)
        if not topic:
            raise InternalServerError("Topic not found", id=ID)
        lines = self._find(id, topic)
        header = {"Micro-Topic": topic, **received(event.header)}
        try:
            if lines and await put(lines, Message(header, event.body)):
                return
        except Unavailable as error:
            raise Unavailable(error.detail, id=ID) from None
        raise NotFound(f"{id[:200]!r} subscribes to no topic {topic[:200]!r} here", id=ID)


def _topic(event: Message) -> str:
    # Up to v1.18 it is `:topic`, and `Micro-Topic` then may be another, the client's own.
    topic = event.header.get(":topic", "")
    if not topic:
        for name, value in event.header.items():
            if name.lower() == "micro-topic":
                topic = value
    return topic
