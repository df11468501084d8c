"""Package server is an interface for serving handlers and subscribers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, Protocol


class Server(Protocol):
    """Serves the methods of handler objects, and functions that take events."""

    address: str
    """Where it listens, empty before `start`."""

    @abstractmethod
    def handle(self, handler: object, *, contract: Callable[..., Any] | None = None) -> None:
        """Serve every public method of an object whose hints make it an endpoint.

        With `contract` only the methods of that class are served, under its name. Raises
        TypeError naming the method whose hints cannot be used.
        """

    @abstractmethod
    def subscribe(self, topic: str, handler: Callable[..., Any], *, queue: str = "") -> None:
        """Run a function for every event of a topic, decoded into the type it hints."""

    @abstractmethod
    async def start(self) -> None:
        """Listen, subscribe and register, in this order; what was done is undone if one fails."""

    @abstractmethod
    async def stop(self) -> None:
        """Deregister, refuse new work, finish what runs within the grace time, cancel the rest."""
