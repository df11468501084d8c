"""Module nats is the registry without a store: who serves something answers questions over NATS."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace

from shoal._nats import Link, Msg, NatsSettings, nobody
from shoal.errors import BadRequest, Unavailable
from shoal.registry import Change, Record, Registry
from shoal.registry._complaints import Complaints
from shoal.registry._feed import Feed
from shoal.registry._nats_expiry import Expiries
from shoal.registry._nats_wire import (
    Action,
    answer,
    news,
    question,
    read_answer,
    read_news,
    read_question,
)
from shoal.registry._records import checked, copied, merge
from shoal.tls import Tls

__all__ = ["CURRENT", "GENERATIONS", "NatsRegistry", "NatsSettings"]

logger = logging.getLogger(__name__)

CURRENT = "micro.nats"  # what subjects begin with; Go Micro v5.10 to v6, registry/nats
GENERATIONS = (CURRENT, "micro.registry.nats")  # and the plugin of v0 to v4
ANSWERS = 65536  # to one question; more are a mistake or an attack
ID = "shoal.registry"


class NatsRegistry(Registry):
    """Answers for its own records, and asks all others for theirs.

    A look-up takes `timeout` seconds, as nobody knows how many will answer, or less with a
    `quorum` of nodes that are enough. Nothing is stored: who is gone does not answer. Watches are
    fed by what is said at every registration; nodes of Shoal vanish from them when their time to
    live is over.
    """

    def __init__(
        self,
        address: str = "",
        *,
        tls: Tls | None = None,
        timeout: float = 0.1,
        quorum: int = 0,
        generations: Sequence[str] = GENERATIONS,
        settings: NatsSettings | None = None,
    ) -> None:
        """Reach NATS at `address`, several separated by commas, `user:password@host:port` each."""
        if not generations:
            raise ValueError("a registry needs a generation of subjects")
        self._link = Link(address, settings, tls, ID)
        self._link.on_lost.append(self._lost)
        self._link.on_back.append(self._back)
        self._timeout = timeout
        self._quorum = quorum
        self._queries = [f"{generation}.query" for generation in generations]
        self._watches = [f"{generation}.watch" for generation in generations]
        self._own: dict[tuple[str, str], Record] = {}  # by name and node, each with one node
        self._ttls: dict[tuple[str, str], float | None] = {}
        self._expiries = Expiries(self._expired)
        self._seen = Expiries(self._vanished)
        self._feeds: dict[Feed, str | None] = {}
        self._listening = False
        self._complaints = Complaints(logger)
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        return f"NatsRegistry({self._link!r}, nodes={len(self._own)}, watches={len(self._feeds)})"

    @property
    def error(self) -> Exception | None:
        """Why NATS cannot be reached now, None if it can."""
        return self._link.error

    async def register(self, record: Record, *, ttl: float | None = None) -> None:
        record = checked(record)
        await self._open()
        for node in record.nodes:
            key = (record.name, node.id)
            self._own[key], self._ttls[key] = replace(record, nodes=(node,)), ttl
            self._expiries.set(key, ttl)
        await self._tell("create", record, ttl)

    async def deregister(self, record: Record) -> None:
        await self._open()
        gone = [one for node in record.nodes if (one := self._forget((record.name, node.id)))]
        for one in merge(gone):
            await self._tell("delete", one)

    async def get(self, name: str) -> list[Record]:
        answers = await self._ask(name, self._quorum)
        return merge(one for one in answers if one.name == name and one.nodes)

    async def services(self) -> list[str]:
        return sorted({one.name for one in await self._ask(None, 0) if one.nodes})

    async def watch(self, name: str | None = None) -> AsyncIterator[Change]:
        feed = Feed()
        await self._open()
        self._feeds[feed] = name
        try:
            while change := await feed.next():
                yield change
        finally:
            self._feeds.pop(feed, None)
            if not self._feeds:
                self._seen.clear()

    async def close(self) -> None:
        async with self._lock:
            for feed in self._feeds:
                feed.end()
            self._feeds.clear()
            self._seen.clear()
            for key in list(self._own):
                if one := self._forget(key):
                    self._say("delete", one)
            await self._link.close()
            self._listening = False

    # Talking

    async def _open(self) -> None:
        """Connect, and hear questions and news from the first use on."""
        async with self._lock:
            if self._listening:
                return
            made = []
            try:
                for subject in (*self._queries, *self._watches):
                    take = self._on_query if subject in self._queries else self._on_news
                    interest = await self._link.subscribe(subject, take)
                    made.append(interest)
            except BaseException:
                for interest in made:
                    await self._link.unsubscribe(interest)
                raise
            self._listening = True

    async def _ask(self, name: str | None, quorum: int) -> list[Record]:
        """Return the records of all who answer in time."""
        await self._open()
        answers: list[Record] = []
        silent = 0
        enough: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_answer(message: Msg) -> None:
            nonlocal silent
            try:
                if nobody(message):
                    silent += 1
                else:
                    answers.append(read_answer(message.data))
            except BadRequest as error:
                self._complaints.add(error, message.subject)
            nodes = sum(len(one.nodes) for one in answers) if quorum else -1
            full = nodes >= quorum > 0 or len(answers) >= ANSWERS
            if (full or silent == len(self._queries)) and not enough.done():
                enough.set_result(None)

        connections = self._link.connections
        reply = self._link.reply_to(on_answer)
        try:
            payload = question(name, self._queries)
            for subject in self._queries:
                await self._link.publish(subject, payload, reply=reply, confirm=False)
            await asyncio.wait([enough], timeout=self._timeout)
        finally:
            self._link.forget(reply)
            enough.cancel()
        if self._link.error is not None or self._link.connections != connections:
            raise Unavailable("the connection to NATS broke while it was asked", id=ID)
        return answers

    async def _tell(self, action: Action, record: Record, ttl: float | None = None) -> None:
        """Say what became of a record, to watchers of every generation."""
        payload = news(action, record, ttl, self._watches)
        for subject in self._watches:
            await self._link.publish(subject, payload)

    def _say(self, action: Action, record: Record, ttl: float | None = None) -> None:
        """The same at once, if there is a connection."""
        payload = news(action, record, ttl, self._watches)
        for subject in self._watches:
            self._link.publish_soon(subject, payload)

    # Hearing

    def _on_query(self, message: Msg) -> None:
        try:
            asked = read_question(message.data, message.subject, self._queries)
        except BadRequest as error:
            self._complaints.add(error, message.subject)
            return
        if asked is None or not message.reply:
            return
        own: dict[str, list[Record]] = {}
        for (name, _), record in self._own.items():
            if asked.name in (None, name):
                own.setdefault(name, []).append(record)
        for records in own.values():
            for record in merge(records):
                self._link.publish_soon(message.reply, answer(record))

    def _on_news(self, message: Msg) -> None:
        if not self._feeds:
            return
        try:
            told = read_news(message.data, message.subject, self._watches)
        except BadRequest as error:
            self._complaints.add(error, message.subject)
            return
        if told is None:
            return
        for node in told.record.nodes:
            ttl = None if told.action == "delete" else told.ttl
            self._seen.set((told.record.name, node.id), ttl, told.record)
        self._tell_feeds(Change(told.action, told.record))

    def _tell_feeds(self, change: Change) -> None:
        for feed, name in self._feeds.items():
            if name in (None, change.record.name):
                feed.put(Change(change.action, copied(change.record)))

    # What ends

    def _forget(self, key: tuple[str, str]) -> Record | None:
        self._expiries.set(key, None)
        self._ttls.pop(key, None)
        return self._own.pop(key, None)

    def _expired(self, key: tuple[str, str], _: Record | None) -> None:
        if one := self._forget(key):
            self._say("delete", one)

    def _vanished(self, key: tuple[str, str], record: Record | None) -> None:
        """Take out a node of another process that has not been registered again in time."""
        if record is not None:
            nodes = tuple(node for node in record.nodes if node.id == key[1])
            self._tell_feeds(Change("delete", replace(record, nodes=nodes)))

    def _lost(self, error: Unavailable) -> None:
        for feed in self._feeds:
            feed.end(error)
        self._seen.clear()

    def _back(self) -> None:
        for key, record in self._own.items():
            self._say("create", record, self._ttls.get(key))
