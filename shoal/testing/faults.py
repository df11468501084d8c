"""Module faults lets a network go wrong in ways that a seed repeats."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from shoal.broker import Broker
from shoal.errors import Unavailable
from shoal.message import Message
from shoal.registry import Registry
from shoal.service import Service
from shoal.transport import Transport

if TYPE_CHECKING:
    from shoal.testing._faulty_broker import FaultyBroker
    from shoal.testing._faulty_registry import FaultyRegistry
    from shoal.testing._faulty_transport import FaultyTransport

ID = "shoal.testing"
HOLD = 0.05  # seconds a message that shall come late waits for the next one
KEPT = 10_000  # lines of the log

Place = str | Service
"""A name given to `transport`, `registry` or `broker`, or a service of a Network."""


@dataclass(frozen=True, slots=True)
class Fate:
    """What happens to one message."""

    delay: float
    drop: bool
    duplicate: bool
    reorder: bool
    corrupt: bool
    cut: bool
    dice: float
    """Which bit is flipped, and whatever else is to be chosen; from 0 to 1."""

    def changed(self, message: Message) -> Message:
        """Return a message as it arrives: with one bit of its body flipped, or as it is."""
        if not self.corrupt or not message.body:
            return message
        body = bytearray(message.body)
        bit = int(self.dice * len(body) * 8)
        body[bit // 8] ^= 1 << bit % 8
        return Message(message.header, bytes(body), message.shared)


class Killed(Protocol):
    """What ends when its place is killed."""

    async def killed(self) -> None:
        """End at once."""


class Faults:
    """What goes wrong between places: at random by the rates, and when a test says so.

    Rates are from 0 to 1, for each message: `drop` loses it, `duplicate` lets it arrive twice,
    `reorder` after the next one, `corrupt` flips a bit of its body, and `cut` breaks its
    connection. Each is late by up to `delay` seconds. They can be changed at any time. The same
    seed gives the n-th message of the n-th connection of a place the same fate in every run.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        delay: float = 0.0,
        drop: float = 0.0,
        duplicate: float = 0.0,
        reorder: float = 0.0,
        corrupt: float = 0.0,
        cut: float = 0.0,
    ) -> None:
        self.seed = seed
        self.delay = delay
        self.drop = drop
        self.duplicate = duplicate
        self.reorder = reorder
        self.corrupt = corrupt
        self.cut = cut
        self.log: deque[str] = deque(maxlen=KEPT)
        """What went wrong, in order, the last so many lines."""
        self._dead: set[str] = set()
        self._cut_off: set[frozenset[str]] = set()
        # Both are sets that keep their order, so that a run repeats another.
        self._waiting: dict[asyncio.Future[None], None] = {}
        self._alive: dict[str, dict[Killed, None]] = {}
        self._addresses: dict[str, str] = {}

    def __repr__(self) -> str:
        names = ("delay", "drop", "duplicate", "reorder", "corrupt", "cut")
        rates = "".join(f", {name}={rate:g}" for name in names if (rate := getattr(self, name)))
        dead = f", dead={sorted(self._dead)}" if self._dead else ""
        apart = f", apart={sorted(map(sorted, self._cut_off))}" if self._cut_off else ""
        return f"Faults({self.seed}{rates}{dead}{apart})"

    # What is put around plugins

    def transport(self, inner: Transport, place: str = "") -> FaultyTransport:
        """Return a transport whose dialled connections suffer, both ways.

        What it listens at is known as the same place.
        """
        from shoal.testing._faulty_transport import FaultyTransport  # which needs this module

        return FaultyTransport(inner, self, place)

    def registry(self, inner: Registry, place: str = "") -> FaultyRegistry:
        """Return a registry that is a place called `registry` for others.

        A question or a change is lost for `drop`, so that one asks again; for `corrupt` an answer
        names an address of nobody.
        """
        from shoal.testing._faulty_registry import FaultyRegistry  # which needs this module

        return FaultyRegistry(inner, self, place)

    def broker(self, inner: Broker, place: str = "") -> FaultyBroker:
        """Return a broker that is a place called `broker` for others.

        Where it promises that events come at least once, publishing fails for `drop`, or an
        acknowledgement is lost; else the event is.
        """
        from shoal.testing._faulty_broker import FaultyBroker  # which needs this module

        return FaultyBroker(inner, self, place)

    # What a test does

    def partition(self, one: Place, other: Place) -> None:
        """Let two places hear nothing of each other.

        What is sent arrives after `heal`, as over TCP; who dials waits. An address stands for a
        place whose transport is not wrapped.
        """
        pair = frozenset((_name(one), _name(other)))
        self._cut_off.add(pair)
        self.log.append(f"partition of {' and '.join(sorted(pair))}")
        self.wake()

    def heal(self) -> None:
        """End all partitions."""
        self._cut_off.clear()
        self.log.append("healed")
        self.wake()

    def calm(self) -> None:
        """Let nothing go wrong from now on: no rate, no partition, nobody dead."""
        self.delay = self.drop = self.duplicate = self.reorder = self.corrupt = self.cut = 0.0
        self._dead.clear()
        self.heal()

    async def kill(self, place: Place) -> None:
        """Let a place die as by `kill -9`: its connections break, nobody listens any more.

        Its registration and subscriptions stay behind, and it reaches nobody.
        """
        name = _name(place)
        self._dead.add(name)
        self.log.append(f"killed {name}")
        self.wake()
        for one in list(self._alive.get(name, ())):
            await one.killed()

    def revive(self, place: Place) -> None:
        """Let a place that was killed reach others, and be reached, again."""
        self._dead.discard(_name(place))
        self.log.append(f"revived {_name(place)}")
        self.wake()

    # What the wrapped plugins ask

    def flow(self, name: str) -> Flow:
        """Return the fates of the messages that go one way."""
        return Flow(self, name)

    def dead(self, place: str) -> bool:
        """Whether a place was killed."""
        return place in self._dead

    def apart(self, one: str, other: str) -> bool:
        """Whether two places hear nothing of each other."""
        return bool(self._cut_off) and frozenset((one, other)) in self._cut_off

    def reaches(self, place: str, other: str) -> bool:
        """Whether both are alive and hear of each other."""
        return not (self.dead(place) or self.dead(other) or self.apart(place, other))

    def check(self, place: str, other: str) -> None:
        """Raise Unavailable if a place does not reach another, which never answers late."""
        if not self.reaches(place, other):
            raise Unavailable(f"{place or 'this'} does not reach {other}", id=ID)

    async def joined(self, one: str, other: str) -> None:
        """Wait while two places are apart."""
        while self.apart(one, other) and not (self.dead(one) or self.dead(other)):
            await self.news()

    def news(self) -> asyncio.Future[None]:
        """Return what is done at the next partition, death or recovery; to be cancelled else."""
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[waiting] = None
        waiting.add_done_callback(lambda done: self._waiting.pop(done, None))
        return waiting

    def live(self, place: str, one: Killed) -> None:
        """Have something ended when its place is killed."""
        self._alive.setdefault(place, {})[one] = None

    def ended(self, place: str, one: Killed) -> None:
        """Forget something that has ended by itself."""
        self._alive.get(place, {}).pop(one, None)

    def listens(self, address: str, place: str) -> None:
        """Remember whose an address is."""
        self._addresses[address] = place

    def whose(self, address: str) -> str:
        """Return the place at an address, the address itself if it is not known."""
        return self._addresses.get(address, address)

    def wake(self) -> None:
        """Have all who wait for a change look again."""
        for waiting in list(self._waiting):
            if not waiting.done():
                waiting.set_result(None)


class Flow:
    """Gives the messages that go one way their fates, one after another."""

    def __init__(self, faults: Faults, name: str) -> None:
        self._faults = faults
        self._name = name
        self._random = random.Random(f"{faults.seed} {name}")
        self._count = 0

    def next(self) -> Fate:
        """Return the fate of the next message.

        Whatever the rates are, it takes as much from the source of chance: to change one does
        not change what another does.
        """
        faults, roll = self._faults, self._random.random
        delay = roll() * faults.delay
        drop, duplicate, reorder, corrupt, cut, dice = (roll() for _ in range(6))
        fate = Fate(
            delay,
            drop < faults.drop,
            duplicate < faults.duplicate,
            reorder < faults.reorder,
            corrupt < faults.corrupt,
            cut < faults.cut,
            dice,
        )
        self._count += 1
        for what in ("drop", "duplicate", "reorder", "corrupt", "cut"):
            if getattr(fate, what):
                faults.log.append(f"{self._name}, {self._count}: {what}")
        return fate


def after_join(faults: Faults, one: str, other: str, callback: Callable[[], Any]) -> None:
    """Call back when two places hear of each other, at once if they do."""
    if not faults.apart(one, other):
        callback()
        return
    faults.news().add_done_callback(lambda _: after_join(faults, one, other, callback))


def _name(place: Place) -> str:
    if isinstance(place, str):
        return place
    name = getattr(place.transport, "place", None)
    if not isinstance(name, str):
        raise TypeError(f"{place!r} is on no network with faults")
    return name
