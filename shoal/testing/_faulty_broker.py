"""Module _faulty_broker is a broker whose events suffer as far as its promises allow."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from shoal.broker import Broker, Deliver, Subscription
from shoal.errors import Error, Unavailable
from shoal.message import Message
from shoal.testing.faults import HOLD, ID, Faults

PLACE = "broker"


class FaultyBroker(Broker):
    """Publishes and subscribes by another broker."""

    def __init__(self, inner: Broker, faults: Faults, place: str) -> None:
        self.place = place
        # Those of the broker inside, where others have them by their class.
        object.__setattr__(self, "guarantees", inner.guarantees)
        self._inner = inner
        self._faults = faults
        self._events = faults.flow(f"{place} publishes")
        self._acknowledgements = faults.flow(f"{place} acknowledges")
        self._held: list[tuple[str, Message]] = []
        self._release: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"FaultyBroker({self.place!r}, {self._inner!r})"

    @property
    def address(self) -> str:  # type: ignore[override]  # nobody else sets it
        """That of the broker inside."""
        return self._inner.address

    @property
    def _sure(self) -> bool:
        return self.guarantees.delivery == "at least once"

    async def connect(self) -> None:
        self._faults.check(self.place, PLACE)
        await self._inner.connect()

    async def disconnect(self) -> None:
        if self._release is not None:
            self._release.cancel()
            await asyncio.gather(self._release, return_exceptions=True)
        await self._send_held()
        await self._inner.disconnect()

    async def publish(self, topic: str, message: Message) -> None:
        self._faults.check(self.place, PLACE)
        fate = self._events.next()
        if fate.delay:
            await asyncio.sleep(fate.delay)
        self._faults.check(self.place, PLACE)
        lost = fate.drop and not (self._sure and fate.dice < 0.5)
        if fate.reorder and not fate.drop and not self._held:
            self._held.append((topic, fate.changed(message)))
            self._release = asyncio.get_running_loop().create_task(self._later())
            return
        if not lost:
            for _ in range(2 if fate.duplicate else 1):
                await self._inner.publish(topic, fate.changed(message))
        await self._send_held()
        if fate.drop and self._sure:  # the event was lost, or it was the answer
            raise Unavailable(f"{PLACE} has not answered {self.place}", id=ID)

    async def subscribe(self, topic: str, deliver: Deliver, *, queue: str = "") -> Subscription:
        self._faults.check(self.place, PLACE)

        async def delivered(message: Message) -> None:
            faults = self._faults
            await faults.joined(self.place, PLACE)
            if faults.dead(self.place):
                raise Unavailable(f"{self.place} was killed", id=ID)
            await deliver(message)
            if faults.dead(self.place) or (self._sure and self._acknowledgements.next().drop):
                raise Unavailable(f"{PLACE} has not heard that {self.place} is done", id=ID)

        return await self._inner.subscribe(topic, delivered, queue=queue)

    async def _later(self) -> None:
        await asyncio.sleep(HOLD)
        await self._send_held()

    async def _send_held(self) -> None:
        held, self._held = self._held, []
        for topic, message in held:
            with suppress(Error):
                await self._inner.publish(topic, message)
