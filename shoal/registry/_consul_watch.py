"""Module _consul_watch follows services by Consul's blocking queries, and tells what changed."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import TypeVar
from urllib.parse import quote

import msgspec

from shoal.errors import BadRequest, Error, NotFound, Unavailable
from shoal.registry import Record
from shoal.registry._consul_agents import Agents, Answer
from shoal.registry._consul_settings import ConsulSettings
from shoal.registry._consul_tags import Entry, records_of
from shoal.registry._differences import Looks, with_missing

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_SETTLE = 5.0  # seconds in which what an agent has forgotten may be registered again
_CALM = 0.05  # seconds between two answers of one watch
_AT_ONCE = 8  # services asked for at the same time

T = TypeVar("T")

_entries = msgspec.json.Decoder(list[Entry])
_names = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Backoff:
    """Waits longer after each failure, never quite as long as others do."""

    def __init__(self) -> None:
        self.failures = 0

    async def wait(self) -> None:
        """Wait after a failure; whoever succeeds sets `failures` to 0."""
        self.failures += 1
        longest = min(_FIRST_PAUSE * 2 ** min(self.failures - 1, 16), _LONGEST_PAUSE)
        await asyncio.sleep(longest * random.uniform(0.5, 1.0))


class Backwards(Exception):
    """An index is lower than before: the agent began anew, and what it said is void."""


class Reader:
    """Asks agents what there is."""

    def __init__(self, agents: Agents, settings: ConsulSettings) -> None:
        self._agents = agents
        self._settings = settings

    async def service(self, name: str, after: Answer | None = None) -> tuple[list[Record], Answer]:
        """Return the records of a service and the answer they are from, as `ask` does."""
        kind = "connect" if self._settings.connect else "service"
        answer = await self.ask(f"health/{kind}/{quote(name, safe='')}", after)
        try:
            records = records_of(name, _entries.decode(answer.data))
        except msgspec.DecodeError as error:
            raise _no_consul(answer, error) from error
        return _seen(answer, records, f"the nodes of {name!r}"), answer

    async def names(self) -> list[str]:
        """Return the sorted names of all services."""
        answer = await self.ask("catalog/services")
        try:
            names = sorted(_names.decode(answer.data))
        except msgspec.DecodeError as error:
            raise _no_consul(answer, error) from error
        return _seen(answer, names, "any service")

    async def everything(self) -> list[Record]:
        """Return the records of all services."""
        limit = asyncio.Semaphore(_AT_ONCE)

        async def one(name: str) -> list[Record]:
            async with limit:
                return (await self.service(name))[0]

        names = await self.names()
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(name)) for name in names]
        except* Error as errors:
            raise Unavailable(str(errors.exceptions[0])) from errors
        return [record for task in tasks for record in task.result()]

    async def changed(self, answers: dict[str, Answer]) -> None:
        """Wait until one of some answers is another one, or for a while; updates them."""
        asked = {
            asyncio.create_task(self.ask(path, answer)): path for path, answer in answers.items()
        }
        try:
            done, _ = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                answers[asked[task]] = task.result()
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

    async def ask(self, path: str, after: Answer | None = None) -> Answer:
        """Return an answer; one that comes after another, from the same agent, when it differs.

        It is the same again after a while. Raises Backwards.
        """
        parameters = self._settings.reading() | _SIGNALS.get(path, {})
        try:
            if after is None:
                return await self._agents.read(path, parameters)
            parameters["index"] = str(max(after.index, 1))
            answer = await self._agents.read(
                path, parameters, wait=self._settings.wait, agent=after.agent
            )
        except (BadRequest, NotFound) as error:
            raise Unavailable(str(error)) from error
        if answer.index < after.index:
            raise Backwards
        return answer


# What changes when any service does: their names and tags, and their health. Only the index of
# the second is of use, hence a filter that nothing passes.
_SIGNALS: dict[str, dict[str, str]] = {
    "catalog/services": {},
    "health/state/any": {"filter": 'Status == "none"'},
}


class Watch(Looks):
    """Follows one service, or all, until it is cancelled; it survives agents that go and come."""

    def __init__(
        self, reader: Reader, name: str | None, failed: Callable[[Exception | None], None]
    ) -> None:
        """Tell `failed` of every problem, and None when it is over."""
        super().__init__(name)
        self._reader = reader
        self._failed = failed
        self._seen: Answer | None = None
        self._signals: dict[str, Answer] = {}

    async def follow(self) -> None:
        """Feed the changes; ends the feed if there is no answer to begin with."""
        try:
            await self._follow()
        finally:
            self._failed(None)
            self.end()

    async def _follow(self) -> None:
        backoff = Backoff()
        fresh, lost = True, False
        while True:
            try:
                found = await (self._look_at_all(fresh) if self.name is None else self._look(fresh))
            except Backwards:
                fresh = lost = True
                continue
            except Error as error:
                if not self.began.is_set():
                    self.end(error)
                    return
                self._failed(error)
                fresh = lost = True
                await backoff.wait()
                continue
            self._failed(None)
            backoff.failures = 0
            # Agents that come back may have forgotten what lives: it has time to register again.
            wanted = with_missing(self.known, found) if lost else found
            self.add(wanted)
            fresh, lost = wanted != found, False
            await asyncio.sleep(_SETTLE if fresh else _CALM)

    async def _look(self, fresh: bool) -> list[Record]:
        assert self.name is not None
        after = None if fresh else self._seen
        records, self._seen = await self._reader.service(self.name, after)
        return records

    async def _look_at_all(self, fresh: bool) -> list[Record]:
        if fresh:
            self._signals = {path: await self._reader.ask(path) for path in _SIGNALS}
        else:
            await self._reader.changed(self._signals)
        return await self._reader.everything()


def _seen(answer: Answer, found: list[T], what: str) -> list[T]:
    """Return what was found; raises Unavailable if that is nothing because it is hidden."""
    if not found and answer.hidden:
        raise Unavailable(f"consul at {answer.agent} does not let this token see {what}")
    return found


def _no_consul(answer: Answer, error: Exception) -> Unavailable:
    return Unavailable(f"what answers at {answer.agent} is no consul: {error}")
