"""Module rabbitmq is the transport over RabbitMQ: a server is a queue, a socket an id in it."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Mapping

import aiormq
from aiormq.abc import AbstractChannel

from shoal._rabbitmq import Consumer, Delivery, Link, RabbitSettings, check_name
from shoal.errors import BadRequest, ConnectionClosed, Unavailable
from shoal.tls import Tls
from shoal.transport import NO_METADATA, Accept, Listener, Socket, Transport
from shoal.transport._rabbitmq_listener import RabbitListener
from shoal.transport._rabbitmq_socket import ID, REPLIES, RabbitSocket

__all__ = ["RabbitSettings", "RabbitTransport"]


class _Look(aiormq.spec.Queue.Declare):
    """Asks for a queue that may be one of replies, whose names pamqp takes for none."""

    def validate(self) -> None:
        return


class RabbitTransport(Transport):
    """Moves messages as Go Micro's plugin does, from queue to queue (transport/rabbitmq).

    One connection carries all sockets, from the first that is opened to the last that is closed;
    when it breaks all of them end, and listeners are there again with the next one. An address is
    the name of a queue; one that ends in `:0` stands for a new one nobody else has.

    A message to a peer that is not there comes back, so that its sender knows. Two Shoal peers
    tell each other that they close, and look every `timeout / 4` seconds whether the other still
    is there. A socket of a Go Micro client ends when nothing was heard of it for `timeout` seconds
    while nothing ran for it.
    """

    def __init__(
        self,
        address: str = "",
        *,
        tls: Tls | None = None,
        max_message: int = 4 * 1024 * 1024,
        unread: int = 64 * 1024 * 1024,
        timeout: float = 60.0,
        settings: RabbitSettings | None = None,
    ) -> None:
        """Reach RabbitMQ at `user:password@host:port/vhost`, several separated by commas.

        `max_message` bounds a body in bytes, `unread` all that wait to be received on a socket.
        Raises BadRequest for an address that is none.
        """
        self.max_message = max_message
        self.unread = unread
        self.timeout = timeout
        self.link = Link(address, settings, tls, ID)
        if self.link.settings.exchange_type == "fanout":
            raise BadRequest("a fanout exchange gives every server each message", id=ID)
        self.link.on_lost.append(self._lost)
        self._replies = Consumer(
            self.link, _replies, self._take, no_ack=True, confirms=True, on_lost=self._unheard
        )
        self._sockets: dict[str, RabbitSocket] = {}
        self._served: set[RabbitSocket] = set()
        self._users: set[object] = set()
        self._sweeper: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"RabbitTransport({self.link!r}, {len(self._all())} sockets)"

    @property
    def error(self) -> Exception | None:
        """Why RabbitMQ cannot be reached now, None if it can."""
        return self.link.error or self._replies.error

    async def dial(self, address: str, metadata: Mapping[str, str] = NO_METADATA) -> Socket:
        self._check(address)
        socket = RabbitSocket(self, address, str(uuid.uuid4()))
        await self.acquire(socket)
        try:
            if await self._consumers(address) is None:
                raise Unavailable("nobody listens there", id=ID)
            await self._hear()
        except BaseException as error:
            await self.release(socket)
            if isinstance(error, Unavailable):
                raise Unavailable(f"cannot connect to {address}: {error}", id=ID) from error
            raise
        self.add(socket)
        return socket

    async def listen(self, address: str, accept: Accept) -> Listener:
        if address.endswith(":0"):
            address = str(uuid.uuid4())
        self._check(address)
        listener = RabbitListener(self, address, accept)
        await self.acquire(listener)
        try:
            if await self._consumers(address):
                raise Unavailable("somebody listens there", id=ID)
            await listener.consumer.start()
        except BaseException as error:
            await listener.close()
            if isinstance(error, Unavailable):
                raise Unavailable(f"cannot listen at {address}: {error}", id=ID) from error
            raise
        return listener

    def _check(self, address: str) -> None:
        check_name(address, "address", ID, pattern=True)

    async def _consumers(self, address: str) -> int | None:
        """Return how many consume a queue, None without such a queue; raises Unavailable."""
        client = await self.link.client()
        channel = await client.channel()
        try:
            async with client.answering():
                assert isinstance(channel, aiormq.Channel)
                found = await channel.rpc(_Look(queue=address, passive=True))
                assert isinstance(found, aiormq.spec.Queue.DeclareOk)
                return found.consumer_count
        except Unavailable as error:
            if isinstance(error.__cause__, aiormq.ChannelNotFoundEntity):
                return None
            raise
        finally:
            with contextlib.suppress(Unavailable):  # the server closes it if there is none
                async with client.answering():
                    await channel.close()

    # The connection, which is there while somebody uses it

    async def acquire(self, user: object) -> None:
        """Connect for a socket or listener; raises Unavailable."""
        async with self._lock:
            self._users.add(user)
            try:
                await self.link.open()
            except BaseException:
                self._users.discard(user)
                raise

    async def release(self, user: object) -> None:
        """Let a connection go that nobody else uses."""
        self._users.discard(user)
        if self._users:
            return
        async with self._lock:
            if not self._users:
                if self._sweeper is not None:
                    self._sweeper.cancel()
                    await asyncio.gather(self._sweeper, return_exceptions=True)
                    self._sweeper = None
                await self._replies.close()
                await self.link.close()

    async def _hear(self) -> None:
        """Consume what servers reply, from the first socket on; raises Unavailable."""
        async with self._lock:
            if not self._replies.started:
                await self._replies.start()
        try:
            await self._replies.ready()
        except TimeoutError:
            raise Unavailable(str(self.error or "no replies are consumed"), id=ID) from None

    def add(self, socket: RabbitSocket) -> None:
        """Watch over a socket, and give it what comes if it is a client's."""
        if socket.served:
            self._served.add(socket)
        else:
            self._sockets[socket.id] = socket
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    def remove(self, socket: RabbitSocket) -> None:
        """Forget a socket."""
        self._served.discard(socket)
        if not socket.served:
            self._sockets.pop(socket.id, None)

    def _all(self) -> set[RabbitSocket]:
        return {*self._sockets.values(), *self._served}

    async def _sweep(self) -> None:
        """Look now and then who still is there: RabbitMQ tells nobody that a queue has gone."""
        while True:
            await asyncio.sleep(self.timeout / 4)
            before = asyncio.get_running_loop().time() - self.timeout
            for remote in {socket.remote for socket in self._all()}:
                with contextlib.suppress(Unavailable):  # who broke it is told otherwise
                    there = await self._consumers(remote) is not None
                    for socket in self._all():
                        if socket.remote == remote:
                            socket.look(there, before)

    def _lost(self, error: Unavailable) -> None:
        for socket in self._all():
            socket.end(ConnectionClosed(str(error), id=ID))

    # What comes back

    def publisher(self) -> AbstractChannel | None:
        """Return the channel that replies come to: RabbitMQ wants requests on the same one."""
        return self._replies.channel

    def _unheard(self) -> None:
        for socket in list(self._sockets.values()):
            socket.end(ConnectionClosed("the channel that replies come to was closed", id=ID))

    def _take(self, message: Delivery) -> None:
        socket = self._sockets.get(message.header.properties.correlation_id or "")
        if socket is not None:
            socket.take(message)


async def _replies(channel: AbstractChannel) -> str:
    return REPLIES
