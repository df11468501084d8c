"""Module _etcd_store is what a registry needs of etcd, whichever API it is asked by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from shoal.errors import Unavailable
from shoal.registry._etcd_http import EtcdHttp
from shoal.registry._etcd_probe import Probe
from shoal.registry._etcd_settings import EtcdSettings


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


class Store(ABC):
    """Keys with values that last as long as they are renewed. All methods raise Unavailable."""

    def __init__(self, http: EtcdHttp, settings: EtcdSettings) -> None:
        self._http = http
        self._settings = settings
        self._seen = 0  # the newest revision that an answer was about
        self._alive = Probe(self._ask_alive)

    async def read(self, prefix: str, *, sure: bool = False) -> Snapshot:
        """Return the keys that begin with the prefix, which ends in a slash.

        Never older than anything read or written before, and with `sure` as of now.
        """
        sure = sure or self._settings.consistency == "linearizable"
        seen = self._seen
        snapshot = await self._read(prefix, sure)
        if not sure and snapshot.position.revision < seen:  # this member is behind the others
            sure, snapshot = True, await self._read(prefix, True)
        if sure and snapshot.position.revision < seen:  # the cluster began anew
            self._seen = snapshot.position.revision
        self.saw(snapshot.position.revision)
        return snapshot

    def saw(self, revision: int) -> None:
        """Note what happened: later look-ups must know of it."""
        self._seen = max(self._seen, revision)

    @property
    def member(self) -> str:
        """The member of the cluster to follow next."""
        return self._http.member

    def avoid(self, member: str) -> None:
        """Follow and ask another one next."""
        self._http.avoid(member)

    async def probe(self, member: str) -> None:
        """Make sure that the member still knows what happens; raises Unavailable if not."""
        await self._alive(member)

    @abstractmethod
    async def _read(self, prefix: str, sure: bool) -> Snapshot:
        """Return what a member knows, or, with `sure`, what a majority does."""

    @abstractmethod
    async def _ask_alive(self, member: str) -> None:
        """Ask the member something that it cannot answer without a majority."""

    @abstractmethod
    async def follow(self, member: str, prefix: str, position: Position, deliver: Deliver) -> None:
        """Deliver everything that happened below a prefix since, until something fails.

        First it delivers nothing: it has begun. Raises HistoryLost when the member does not know
        what has happened since.
        """

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
    async def remove(self, keys: Sequence[str]) -> None:
        """Remove keys; unknown ones are no error. Their leases, empty now, end by themselves."""
