"""Package transport is an interface for moving messages between two processes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from shoal.message import Message

NO_METADATA: Mapping[str, str] = MappingProxyType({})


class Socket(Protocol):
    """Moves whole messages, in order, both ways at once. One task may send while one receives."""

    local: str
    """This side's address."""
    remote: str
    """The peer's address."""
    numbered: bool = True
    """Whether requests need a `Micro-Id`, as between Go Micro's peers."""

    @abstractmethod
    async def send(self, message: Message) -> None:
        """Hand a message to the network; waits while the peer does not take what was sent before.

        Raises ConnectionClosed when the peer is gone or the socket was closed (with `unsent` set
        if nothing of the message went out), and BadRequest for a message that cannot be sent,
        after which the socket is as it was.
        """

    @abstractmethod
    def recv(self) -> Awaitable[Message]:
        """Return the next message.

        Raises ConnectionClosed at the end, after everything that had arrived was returned, and
        TooLarge or BadRequest when the peer sends what cannot be a message; the socket is then
        closed. Being cancelled loses no message.
        """

    @abstractmethod
    def on_lost(self, callback: Callable[[], object]) -> None:
        """Call back once, in the event loop, when the peer goes away; replaces what was set.

        Messages that arrived before can still be received then. A transport that cannot notice
        the peer's death never calls. At once if it has gone already.
        """

    def on_message(self, take: Callable[[Message], bool]) -> None:
        """Let a function take messages for which `recv` waits, before that returns them.

        It is called in a callback of the event loop, outside any task, and returns whether it
        has done all there was to do; else the message is received. A transport that calls it
        saves its users the way through a task; the others need not know of it.
        """
        return None

    def try_send(self, message: Message) -> bool:
        """Hand a message to the network if there is nothing to wait for; False if it was not.

        Only `send` tells why not.
        """
        return False

    @abstractmethod
    async def close(self) -> None:
        """Close both ways; what was sent still goes out if the peer takes it. Never raises."""


Accept = Callable[[Socket], Coroutine[Any, Any, None]]
"""Serves one accepted socket; the transport closes the socket when it returns."""


class Listener(Protocol):
    """Accepts sockets at an address until it is closed."""

    address: str
    """The address that was bound, in the form `dial` takes, with the port that was chosen."""
    metadata: Mapping[str, str] = NO_METADATA
    """What a node's metadata must say of it, for `dial` to know."""

    @abstractmethod
    async def close(self) -> None:
        """Stop accepting, cancel and await what serves the accepted sockets, and close them.

        Nothing is left when it returns. Never raises.
        """


class Transport(Protocol):
    """Connects to addresses and listens at them."""

    @abstractmethod
    async def dial(self, address: str, metadata: Mapping[str, str] = NO_METADATA) -> Socket:
        """Connect to a listener, of which the metadata of its node is known, or nothing.

        Raises Unavailable, naming the address, when nobody listens there or the time is over,
        and BadRequest for an address this transport cannot understand.
        """

    @abstractmethod
    async def listen(self, address: str, accept: Accept) -> Listener:
        """Listen at an address and run `accept` in a task for every socket that connects.

        `host:0` takes a free port, `host:5000-5010` the first free one of the range, and an empty
        host every interface. Raises Unavailable when the address is taken, BadRequest when it
        cannot be understood.
        """
