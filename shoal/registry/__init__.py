"""Package registry is an interface for telling where services are and finding them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class Value:
    """The shape of a request or reply: a field's name, its type's name and the fields in it."""

    name: str
    type: str
    values: tuple[Value, ...] = ()


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Something a service can be asked for, or a topic it listens to."""

    name: str
    request: Value | None = None
    response: Value | None = None
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Node:
    """One running instance: its id and the address (`host:port`) it serves."""

    id: str
    address: str
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Record:
    """One version of a service with the nodes that run it. Never changed after it was made."""

    name: str
    version: str = "latest"
    nodes: tuple[Node, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Change:
    """What a watch sees: the nodes of `record` were added or changed, or are gone (`delete`)."""

    action: Literal["create", "update", "delete"]
    record: Record


class Registry(Protocol):
    """Knows which nodes run which service. Every method raises Unavailable when it cannot tell."""

    @abstractmethod
    async def register(self, record: Record, *, ttl: float | None = None) -> None:
        """Add or refresh the record's nodes, which vanish `ttl` seconds after the last refresh.

        A node already known by its id is replaced. Raises BadRequest for a record this registry
        cannot hold (no node, no address).
        """

    @abstractmethod
    async def deregister(self, record: Record) -> None:
        """Remove the record's nodes, and only those; unknown ones are no error."""

    @abstractmethod
    async def get(self, name: str) -> Sequence[Record]:
        """Return one record per version with all its nodes merged, empty if nobody runs it."""

    @abstractmethod
    async def services(self) -> Sequence[str]:
        """Return the sorted names of all services."""

    @abstractmethod
    def watch(self, name: str | None = None) -> AsyncIterator[Change]:
        """Yield changes of one service, or of all, from the first step of the iteration on.

        A registration may be told more than once. Closing the iterator ends the watch. Raises
        Unavailable when changes may have been missed: ask again with `get`, then watch anew.
        """

    @abstractmethod
    async def close(self) -> None:
        """Forget what this side registered, end its watches and release tasks and sockets.

        It can be used again afterwards. Never raises.
        """
