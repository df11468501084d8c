"""Module multi is several registries in one: for moving from one to another, and for two worlds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from shoal.errors import BadRequest, Error
from shoal.registry import Change, Record, Registry
from shoal.registry._multi_parts import Part, all_failed, parts_of
from shoal.registry._multi_watch import Watch
from shoal.registry._records import checked, merge
from shoal.tls import Tls

logger = logging.getLogger(__name__)

_PAUSE = 2.0  # seconds until a writer that failed is told again


@dataclass(frozen=True, slots=True)
class _Registered:
    """A record with one node, until its owner should have refreshed it, by the loop's clock."""

    record: Record
    ttl: float | None
    until: float


class MultiRegistry(Registry):
    """Registers in all writers, and finds what is in any writer or reader, merged.

    One that cannot be asked breaks none of the others: what it knew last counts until it can.
    Registries that are given by their names are closed with this one.
    """

    def __init__(
        self,
        address: str = "",
        *,
        writers: Sequence[Registry | str] = (),
        readers: Sequence[Registry | str] = (),
        tls: Tls | None = None,
        timeout: float = 5.0,
    ) -> None:
        """Take `mdns,etcd://10.0.0.1:2379,read:consul`, or registries, or both.

        No part is waited for longer than `timeout` seconds. Raises BadRequest and PluginError.
        """
        named_writers, named_readers = parts_of(address)
        self._writers = [Part(one, tls, writes=True) for one in (*named_writers, *writers)]
        others = [Part(one, tls, writes=False) for one in (*named_readers, *readers)]
        self._parts = [*self._writers, *others]
        if not self._parts:
            raise BadRequest("multi: which registries? multi://mdns,etcd://10.0.0.1:2379")
        self.tells_others = any(
            getattr(one.registry, "tells_others", True) for one in self._writers
        )
        self._timeout = timeout
        self._registered: dict[tuple[str, str], _Registered] = {}
        self._missing: dict[tuple[str, str], set[Part]] = {}  # writers a node is not known to
        self._repair: asyncio.Task[None] | None = None
        self._watches: set[Watch] = set()

    def __repr__(self) -> str:
        return (
            f"MultiRegistry({self._parts}, nodes={len(self._registered)},"
            f" watches={len(self._watches)})"
        )

    @property
    def error(self) -> Exception | None:
        """Why the first part that is not well is not, None if all are."""
        return next((part.error for part in self._parts if part.error is not None), None)

    async def register(self, record: Record, *, ttl: float | None = None) -> None:
        """Register with every writer; with those that fail, as soon as they do no more."""
        record = checked(record)
        if not self._writers:
            logger.debug("multi: %s is registered nowhere: there are only readers", record.name)
            return
        failed = await self._told(lambda one: one.register(record, ttl=ttl))
        until = asyncio.get_running_loop().time() + (float("inf") if ttl is None else ttl)
        for node in record.nodes:
            key = (record.name, node.id)
            self._registered[key] = _Registered(replace(record, nodes=(node,)), ttl, until)
            self._missing.pop(key, None)
            if failed:
                self._missing[key] = failed
        if failed and self._repair is None:
            self._repair = asyncio.get_running_loop().create_task(self._tell_again())

    async def deregister(self, record: Record) -> None:
        for node in record.nodes:
            self._registered.pop((record.name, node.id), None)
            self._missing.pop((record.name, node.id), None)
        if self._writers and record.nodes:
            await self._told(lambda one: one.deregister(record))

    async def get(self, name: str) -> list[Record]:
        for watch in list(self._watches):
            if watch.name in (None, name):
                await watch.began.wait()
        answers = await asyncio.gather(*(part.get(name, self._timeout) for part in self._parts))
        problems = [problem for _, problem in answers if problem is not None]
        found = merge(record for records, _ in answers for record in records)
        if problems and not found:
            raise all_failed(problems)  # nobody runs it, as far as the others know
        return found

    async def services(self) -> list[str]:
        answers = await self._asked(self._parts, lambda one: one.services())
        names = {name for answer in answers if not isinstance(answer, Error) for name in answer}
        problems = [answer for answer in answers if isinstance(answer, Error)]
        if problems and not names:
            raise all_failed(problems)
        return sorted(names)

    async def watch(self, name: str | None = None) -> AsyncIterator[Change]:
        watch = Watch(self._parts, name, self._timeout)
        self._watches.add(watch)
        watch.start()
        try:
            while change := await watch.feed.next():
                yield change
        finally:
            self._watches.discard(watch)
            await watch.stop()

    async def close(self) -> None:
        """Deregister what was registered here, and close the registries that were made here."""
        for watch in list(self._watches):
            await watch.stop()
        repair, self._repair = self._repair, None
        if repair is not None:
            repair.cancel()
            await asyncio.wait([repair])
        given = [part for part in self._writers if not part.owned]
        for one in list(self._registered.values()):
            await self._asked(given, partial(_deregister, record=one.record))
        self._registered.clear()
        self._missing.clear()
        await asyncio.gather(*(part.registry.close() for part in self._parts if part.owned))

    async def _asked(
        self, parts: Sequence[Part], work: Callable[[Registry], Awaitable[Any]]
    ) -> list[Any]:
        """Ask parts at the same time, and return each one's answer or error."""
        asked = (part.do(work, self._timeout) for part in parts)
        answers = await asyncio.gather(*asked, return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException) and not isinstance(answer, Error):
                raise answer
        return answers

    async def _told(self, work: Callable[[Registry], Awaitable[None]]) -> set[Part]:
        """Tell all writers, and return those that failed; raises if that is every one."""
        answers = await self._asked(self._writers, work)
        problems = {
            part: answer
            for part, answer in zip(self._writers, answers, strict=True)
            if isinstance(answer, Error)
        }
        if len(problems) == len(self._writers):
            raise all_failed(list(problems.values()))
        return {part for part, problem in problems.items() if not isinstance(problem, BadRequest)}

    async def _tell_again(self) -> None:
        """Register with the writers that have failed, until they all have done it."""
        while self._missing:
            await asyncio.sleep(_PAUSE)
            for key, parts in list(self._missing.items()):
                for part in list(parts):
                    if key in self._missing:
                        await self._register_again(part, key)
        self._repair = None

    async def _register_again(self, part: Part, key: tuple[str, str]) -> None:
        one = self._registered[key]
        if one.until < asyncio.get_running_loop().time():
            self._missing.pop(key)  # its owner has given it up
            return
        try:
            await part.do(lambda to: to.register(one.record, ttl=one.ttl), self._timeout)
        except Error as error:
            logger.debug("multi: %s", error)
            return
        parts = self._missing.get(key, set())
        parts.discard(part)
        if not parts:
            self._missing.pop(key, None)


async def _deregister(registry: Registry, record: Record) -> None:
    await registry.deregister(record)
