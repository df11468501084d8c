"""Module nats is the transport over NATS: a server is a subject, a socket the inbox of a client."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping

from shoal._nats import Interest, Link, Msg, NatsSettings, check_subject
from shoal.errors import ConnectionClosed, Unavailable
from shoal.tls import Tls
from shoal.transport import NO_METADATA, Accept, Listener, Socket, Transport
from shoal.transport._accepted import AcceptedSockets
from shoal.transport._nats_socket import HELLO, ID, NatsSocket, word_of

__all__ = ["NatsSettings", "NatsTransport"]

SOCKETS = 65536  # of one listener; a stranger may not open more


class NatsTransport(Transport):
    """Moves messages in Go Micro's JSON from subject to subject (transport/nats).

    One connection carries all sockets, from the first that is opened to the last that is closed;
    when it breaks all of them end, and listeners are there again with the next one. An address is
    a subject; one that ends in `:0` stands for a new one nobody else has.

    NATS tells nobody that a peer has gone. Two Shoal peers tell each other that they close, and
    ask each other every `timeout / 4` seconds whether they still are there. A socket of a Go Micro
    client ends when nothing was heard of it for `timeout` seconds while nothing ran for it; that a
    server has gone is noticed at the next message to it.
    """

    def __init__(
        self,
        address: str = "",
        *,
        tls: Tls | None = None,
        max_message: int = 4 * 1024 * 1024,
        unread: int = 64 * 1024 * 1024,
        timeout: float = 60.0,
        settings: NatsSettings | None = None,
    ) -> None:
        """Reach NATS at `address`, several separated by commas, `user:password@host:port` each.

        `max_message` bounds a body in bytes, `unread` all that wait to be received on a socket.
        """
        self.max_message = max_message
        self.unread = unread
        self.timeout = timeout
        self.link = Link(address, settings, tls, ID)
        self.link.on_lost.append(self._lost)
        self._sockets: set[NatsSocket] = set()
        self._users: set[object] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"NatsTransport({self.link!r}, {len(self._sockets)} sockets)"

    @property
    def error(self) -> Exception | None:
        """Why NATS cannot be reached now, None if it can."""
        return self.link.error

    async def dial(self, address: str, metadata: Mapping[str, str] = NO_METADATA) -> Socket:
        check_subject(address, "address", ID)
        socket = NatsSocket(self, address)
        try:
            await self.acquire(socket)
            await self.link.ready()
        except BaseException as error:
            await self.release(socket)
            if isinstance(error, Unavailable):
                raise Unavailable(f"cannot connect to {address}: {error}", id=ID) from error
            raise
        socket.open(self.link.reply_to(socket.take))
        self.add(socket)
        return socket

    async def listen(self, address: str, accept: Accept) -> Listener:
        if address.endswith(":0"):
            address = f"{self.link.settings.inbox}.{secrets.token_hex(11)}"
        check_subject(address, "address", ID)
        listener = NatsListener(self, address, accept)
        try:
            await self.acquire(listener)
            listener.interest = await self.link.subscribe(address, listener.take)
        except BaseException as error:
            await self.release(listener)
            if isinstance(error, Unavailable):
                raise Unavailable(f"cannot listen at {address}: {error}", id=ID) from error
            raise
        return listener

    # The connection, which is there while somebody uses it

    async def acquire(self, user: object) -> None:
        """Connect for a socket or listener, to be released in any case; raises Unavailable."""
        async with self._lock:
            self._users.add(user)
            await self.link.open()

    async def release(self, user: object) -> None:
        """Let a connection go that nobody else uses."""
        self._users.discard(user)
        if self._users:
            return
        async with self._lock:
            if not self._users:
                if self._sweeper is not None:
                    self._sweeper.cancel()
                    self._sweeper = None
                await self.link.close()

    def add(self, socket: NatsSocket) -> None:
        """Watch over a socket."""
        self._sockets.add(socket)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(self.timeout / 4, self._sweep)

    def remove(self, socket: NatsSocket) -> None:
        """Watch over a socket no more."""
        self._sockets.discard(socket)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeper = loop.call_later(self.timeout / 4, self._sweep) if self._sockets else None
        for socket in list(self._sockets):
            socket.look(loop.time() - self.timeout)

    def _lost(self, error: Unavailable) -> None:
        for socket in list(self._sockets):
            socket.lose(ConnectionClosed(str(error), id=ID))


class NatsListener(Listener):
    """A subject, and a socket for each inbox that messages come from."""

    interest: Interest | None = None

    def __init__(self, transport: NatsTransport, address: str, accept: Accept) -> None:
        self.address = address
        self._transport = transport
        self._accepted = AcceptedSockets(accept)
        self._sockets: dict[str, NatsSocket] = {}

    def __repr__(self) -> str:
        return f"<listener at {self.address} with {len(self._sockets)} sockets>"

    def take(self, message: Msg) -> None:
        """Hand a message to the socket of its inbox, which may be a new one."""
        socket = self._sockets.get(message.reply)
        if socket is None:
            word = word_of(message)
            if not message.reply or (word and word != HELLO) or len(self._sockets) >= SOCKETS:
                return  # nobody to answer, or the rest of what has ended
            socket = NatsSocket(self._transport, message.reply, self)
            socket.local = self.address
            socket.open(self._transport.link.reply_to(socket.take))
            self._sockets[message.reply] = socket
            self._transport.add(socket)
            if word == HELLO:
                socket.say(HELLO)
            self._accepted.add(socket)
        socket.take(message)

    def forget(self, socket: NatsSocket) -> None:
        """Take no more messages for a socket that was closed."""
        self._sockets.pop(socket.remote, None)

    async def close(self) -> None:
        if self.interest is not None:
            await self._transport.link.unsubscribe(self.interest)
            self.interest = None
        await self._accepted.close()
        await self._transport.release(self)
