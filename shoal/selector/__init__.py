"""Package selector is an interface for choosing the node that gets a call."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from shoal.registry import Node, Record

Filter = Callable[[Sequence[Record]], Sequence[Record]]
"""Keeps the records, and the nodes in them, that a call may go to."""


@dataclass(slots=True, eq=False)
class Load:
    """A node with what this client knows of it; shared by all calls of one selector."""

    node: Node
    in_flight: int = 0
    latency: float = 0.0
    """Smoothed seconds per call, 0 before the first."""
    errors: int = 0
    """Failures to reach it since it was last reached."""
    marked: float = 0.0
    """Loop time of the last `mark`, by which a strategy can let the latency fade."""


Strategy = Callable[[str, Sequence[Load]], Load]
"""Picks one of the (never empty) loads for a service; may keep state between calls."""


class GaveUp(Exception):
    """The caller did not wait for the end of an attempt: that says nothing of the node's health."""


class Next(Protocol):
    """Gives the node for one attempt of a call."""

    @abstractmethod
    def __call__(self, tried: Container[str] = ()) -> Node:
        """Return a node, one whose id is not in `tried` if there is another.

        Every node that was given is handed back with `mark`. Raises Unavailable if no node is
        left to choose from.
        """


_NONE: Mapping[str, Next] = MappingProxyType({})


class Selector(Protocol):
    """Knows the nodes of services, and how each of them does."""

    @property
    def ready(self) -> Mapping[str, Next]:
        """The choosers of services whose nodes are known, which change with what is known.

        What is here need not be waited for with `select`, by calls without filters and strategy
        of their own. A selector may leave it empty.
        """
        return _NONE

    @abstractmethod
    async def select(
        self, service: str, *, filters: Sequence[Filter] = (), strategy: Strategy | None = None
    ) -> Next:
        """Return the chooser for one call.

        `filters` are applied in order, `strategy` replaces the selector's own for this call.
        Raises ServiceNotFound if no node is known, Unavailable if the filters leave none or the
        registry cannot be asked and nothing is known from before.
        """

    @abstractmethod
    def mark(self, service: str, node: Node, error: Exception | None, elapsed: float) -> None:
        """Tell how an attempt on a node went: its error, if any, and the seconds it took.

        Called exactly once for every node that a Next gave, with GaveUp for an attempt that was
        cancelled before it ended.
        """

    @abstractmethod
    async def close(self) -> None:
        """End watches and forget what is known. It can be used again afterwards. Never raises."""
