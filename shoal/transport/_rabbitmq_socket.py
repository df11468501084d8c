"""Module _rabbitmq_socket is one end of a conversation over RabbitMQ."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from shoal._rabbitmq import Delivery, Properties, read, table
from shoal.errors import ConnectionClosed, Error, TooLarge, Unavailable
from shoal.message import Message
from shoal.transport import Socket
from shoal.transport._header import carried
from shoal.transport._inbox import Inbox

if TYPE_CHECKING:
    from shoal.transport._rabbitmq_listener import RabbitListener
    from shoal.transport.rabbitmq import RabbitTransport

logger = logging.getLogger(__name__)

ID = "shoal.transport"

# AMQP's property `type`, which Go Micro's plugin does not look at, tells Shoal peers from others.
SHOAL, CLOSE = "shoal", "shoal.close"

REPLIES = "amq.rabbitmq.reply-to"  # direct reply-to: a queue RabbitMQ has for each channel


def is_close(message: Delivery) -> bool:
    """Whether a message says that the peer has closed its socket."""
    return bool(message.header.properties.message_type == CLOSE)


class RabbitSocket(Socket):
    """A client's end, or with a listener a server's; both are told apart by the correlation id."""

    def __init__(
        self,
        transport: RabbitTransport,
        remote: str,
        id: str,
        listener: RabbitListener | None = None,
    ) -> None:
        self.remote, self.id = remote, id
        self.local = listener.address if listener is not None else id
        self._transport = transport
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._inbox = Inbox(self._loop)
        self._unread = 0
        self._ended = False
        self._closed = False
        self._receiving = False
        self._shoal = False  # whether the peer is known to understand what closing is
        self._unanswered = False
        self._active = self._loop.time()
        self._on_lost: Callable[[], object] | None = None

    def __repr__(self) -> str:
        state = "closed" if self._closed else "ended" if self._ended else "open"
        return f"<RabbitSocket {self.local} to {self.remote} {state}, {self._unread} bytes unread>"

    @property
    def served(self) -> bool:
        """Whether it is a server's end."""
        return self._listener is not None

    async def send(self, message: Message) -> None:
        header = carried(message.headers())
        if "Micro-Id" in header:
            header["Micro-ID"] = header["Micro-Id"]  # Go Micro v4.10 to v6 look for this spelling
        header = table(header, ID)
        if self._ended:
            raise self._gone(f"the conversation with {self.remote} has ended", unsent=True)
        self._active = self._loop.time()
        self._unanswered = True
        try:
            arrived = await self._publish(header, message.body, SHOAL)
        except Unavailable as error:
            raise self._gone(f"{self.remote}: {error}", unsent=error.unsent) from error
        if not arrived:
            gone = self._gone(f"nobody listens at {self.remote} any more", unsent=True)
            self.end(gone)
            raise gone

    async def _publish(self, header: dict[str, str], body: bytes, kind: str) -> bool:
        properties = Properties(
            headers=dict(header), correlation_id=self.id, message_type=kind, delivery_mode=1
        )
        link = self._transport.link
        if self._listener is not None:
            return await link.publish(self.remote, body, properties, exchange="")
        channel = self._transport.publisher()
        if channel is None:
            error = Unavailable("there is no connection to RabbitMQ", id=ID)
            error.unsent = True
            raise error
        properties.reply_to = REPLIES
        return await link.publish(self.remote, body, properties, mandatory=True, channel=channel)

    async def recv(self) -> Message:
        self._receiving = True
        try:
            message = await self._inbox
        finally:
            self._receiving = False
        self._unread -= len(message.body)
        self._active = self._loop.time()
        return message

    def on_lost(self, callback: Callable[[], object]) -> None:
        self._on_lost = callback
        if self._ended:
            self._loop.call_soon(self._tell)

    async def close(self) -> None:
        self._on_lost = None
        if self._closed:
            return
        self._closed = True
        told = self._ended
        self.end(ConnectionClosed("the socket was closed", id=ID))
        try:
            # A server that has not said anything may be Shoal's and still run the request; one of
            # Go Micro ends its socket when it reads a message without content.
            if not told and (self._shoal or (self._listener is None and self._unanswered)):
                await self._publish({}, b"", CLOSE)
        except Error as error:
            logger.debug("%s is not told that a socket was closed: %s", self.remote, error)
        finally:
            self._transport.remove(self)
            if self._listener is None:
                await self._transport.release(self)
            else:
                self._listener.forget(self)

    # What comes from RabbitMQ

    def take(self, message: Delivery) -> None:
        """Take a message, or the news that the peer has closed."""
        self._active = self._loop.time()
        kind = message.header.properties.message_type
        self._shoal = self._shoal or kind in (SHOAL, CLOSE)
        if kind == CLOSE:
            self.end(ConnectionClosed(f"{self.remote} closed", id=ID))
            return
        size = len(message.body)
        if size > self._transport.max_message:
            limit = self._transport.max_message
            self.end(TooLarge(f"a message of {size} bytes came, the limit is {limit}", id=ID))
        elif self._unread + size > self._transport.unread:
            self.end(TooLarge(f"{self._unread} bytes that came were not received", id=ID))
        else:
            self._unanswered = False
            self._unread += size
            received = Message(read(message.header.properties.headers), message.body)
            # The receiving task must not be resumed inside the one that calls this.
            self._loop.call_soon(self._inbox.put, received)

    def end(self, error: Error) -> None:
        """Let receiving fail with this error once what came is used up."""
        if not self._ended:
            self._ended = True
            self._loop.call_soon(self._inbox.end, error)
            self._loop.call_soon(self._tell)

    def look(self, there: bool, oldest: float) -> None:
        """End it if the peer's queue is not there, or a Go client was silent since a time."""
        if not there:
            self.end(ConnectionClosed(f"{self.remote} has gone", id=ID))
        elif self.served and not self._shoal and self._receiving and self._active < oldest:
            self.end(ConnectionClosed(f"{self.remote} was idle", id=ID))

    def _tell(self) -> None:
        callback, self._on_lost = self._on_lost, None
        if callback is not None:
            callback()

    def _gone(self, why: str, *, unsent: bool) -> ConnectionClosed:
        error = ConnectionClosed(why, id=ID)
        error.unsent = unsent
        return error
