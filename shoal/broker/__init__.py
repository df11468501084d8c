"""Package broker is an interface for publishing events and subscribing to them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from typing import ClassVar, Protocol

from shoal.broker._guarantees import Guarantees as Guarantees
from shoal.message import Message

Deliver = Callable[[Message], Awaitable[None]]
"""Takes one event. Returning acknowledges it where the broker can, raising does not."""


class Subscription(Protocol):
    """A subscription that stands until it is cancelled."""

    topic: str
    queue: str

    @abstractmethod
    async def unsubscribe(self) -> None:
        """End it: no delivery starts afterwards, those that run are finished first.

        Never raises; a second call does nothing.
        """


class Broker(Protocol):
    """Moves events from publishers to the subscribers of a topic."""

    address: str
    """Where it listens or is connected to; empty before `connect`."""
    guarantees: ClassVar[Guarantees] = Guarantees()
    """What it promises."""

    @abstractmethod
    async def connect(self) -> None:
        """Make it ready; does nothing if it is. Raises Unavailable if it cannot be reached."""

    @abstractmethod
    async def disconnect(self) -> None:
        """End all subscriptions and connections, finishing deliveries that run. Never raises."""

    @abstractmethod
    async def publish(self, topic: str, message: Message) -> None:
        """Hand an event over; it connects if need be. No subscriber is no error.

        Raises Unavailable if the broker cannot take it, BadRequest for a topic or header it
        cannot carry.
        """

    @abstractmethod
    async def subscribe(self, topic: str, deliver: Deliver, *, queue: str = "") -> Subscription:
        """Get every event of a topic, or with a queue a share of them with all others in it.

        An error that `deliver` raises is logged and ends nothing. Raises Unavailable if the
        broker cannot be reached, BadRequest for a topic it cannot carry.
        """
