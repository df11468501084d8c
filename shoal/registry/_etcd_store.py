"""Module _etcd_store is what a registry needs of etcd, whichever API it is asked by."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from shoal.errors import Unavailable


@dataclass(frozen=True, slots=True)
class Position:
    """A moment in the history of a store."""

    revision: int
    term: int = 0  # of the leader; one that is less than before: the cluster began anew


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The keys of a moment, and what stands in them."""

    position: Position
    values: Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class Event:
    """A key has this value since a revision, or, if it is None, is gone."""

    key: str
    value: bytes | None
    revision: int


Deliver = Callable[[Sequence[Event]], Awaitable[None]]


class HistoryLost(Unavailable):
    """What happened since a revision is not known any more: everything must be read again."""


class Store(Protocol):
    """Keys with values that last as long as they are renewed. All methods raise Unavailable."""

    @property
    @abstractmethod
    def member(self) -> str:
        """The member of the cluster to follow next."""

    @abstractmethod
    def avoid(self, member: str) -> None:
        """Follow and ask another one next."""

    @abstractmethod
    async def read(self, prefix: str, *, sure: bool = False) -> Snapshot:
        """Return the keys that begin with the prefix, a slash at its end.

        Never older than anything read or written before. With `sure`, as of now.
        """

    @abstractmethod
    async def follow(self, member: str, prefix: str, position: Position, deliver: Deliver) -> None:
        """Deliver everything that happened below a prefix since, until something fails.

        First it delivers nothing: it has begun. Raises HistoryLost when the member does not know
        what has happened since.
        """

    @abstractmethod
    async def probe(self, member: str) -> None:
        """Make sure that the member still knows what happens; raises Unavailable if not."""

    @abstractmethod
    async def place(self, key: str, value: bytes, seconds: int, lease: int) -> int:
        """Write a key that lasts so many seconds (0: for ever), and return its lease.

        With the lease given, if that is still there, else with a new one. Raises BadRequest for a
        value that is too large.
        """

    @abstractmethod
    async def present(self, key: str, value: bytes, seconds: int, lease: int) -> bool:
        """Renew a key, and tell whether it is there as it was placed."""

    @abstractmethod
    async def renew(self, held: Iterable[tuple[str, int, int]]) -> set[tuple[str, int]]:
        """Renew keys, given with seconds and lease; return keys and leases that are gone."""

    @abstractmethod
    async def remove(self, key: str, lease: int) -> None:
        """Remove a key, and its lease if that is not 0; unknown ones are no error."""
