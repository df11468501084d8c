"""Module _rabbitmq_listener is a queue that sockets come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiormq.abc import AbstractChannel

from shoal._rabbitmq import Consumer, Delivery
from shoal.transport import Accept, Listener
from shoal.transport._accepted import AcceptedSockets
from shoal.transport._rabbitmq_socket import RabbitSocket, is_close

if TYPE_CHECKING:
    from shoal.transport.rabbitmq import RabbitTransport

SOCKETS = 65536  # of one listener; a stranger may not open more


class RabbitListener(Listener):
    """A queue, and a socket for each correlation id that messages carry."""

    def __init__(self, transport: RabbitTransport, address: str, accept: Accept) -> None:
        self.address = address
        self.consumer = Consumer(transport.link, self._declare, self._take, no_ack=True)
        self._transport = transport
        self._accepted = AcceptedSockets(accept)
        self._sockets: dict[tuple[str, str], RabbitSocket] = {}

    def __repr__(self) -> str:
        return f"<listener at {self.address} with {len(self._sockets)} sockets>"

    async def _declare(self, channel: AbstractChannel) -> str:
        settings = self._transport.link.settings
        await channel.exchange_declare(
            settings.exchange,
            exchange_type=settings.exchange_type,
            durable=bool(settings.durable_exchange),
        )
        await channel.queue_declare(self.address, auto_delete=True)
        await channel.queue_bind(self.address, settings.exchange, routing_key=self.address)
        return self.address

    def _take(self, message: Delivery) -> None:
        properties = message.header.properties
        key = (properties.reply_to or "", properties.correlation_id or "")
        socket = self._sockets.get(key)
        if socket is None:
            if not all(key) or is_close(message) or len(self._sockets) >= SOCKETS:
                return  # nobody to answer, or the rest of what has ended
            socket = RabbitSocket(self._transport, *key, self)
            self._sockets[key] = socket
            self._transport.add(socket)
            self._accepted.add(socket)
        socket.take(message)

    def forget(self, socket: RabbitSocket) -> None:
        """Take no more messages for a socket that was closed."""
        self._sockets.pop((socket.remote, socket.id), None)

    async def close(self) -> None:
        await self.consumer.close()
        await self._accepted.close()
        await self._transport.release(self)
