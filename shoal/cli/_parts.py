"""Module _parts gives a command the parts of a service, for as long as it runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from difflib import get_close_matches
from typing import Any, TypeVar

import click

from shoal.cli._command import options
from shoal.cli._exits import NOT_FOUND, TERMINATED, Failure
from shoal.errors import Error, Timeout
from shoal.options import Options
from shoal.registry import Record
from shoal.service._parts import Parts, build

T = TypeVar("T")

BOOKKEEPING = ("micro.http.broker", "go.micro.http.broker")
"""Names under which the HTTP brokers of Go Micro register subscribers (v6 and v1)."""

_AT_ONCE = 16


class Fleet:
    """What a command works with: the parts, and the options they were made from."""

    def __init__(self, parts: Parts, options: Options) -> None:
        self.parts = parts
        self.client = parts.client
        self.broker = parts.broker
        self.options = options

    @property
    def registry_name(self) -> str:
        """The name of the registry in use."""
        return self.options.plugin("registry")[0]

    async def names(self, *, everything: bool = False) -> list[str]:
        """Return the sorted names of services, without a broker's own bookkeeping."""
        found = await self._asked(self.parts.registry.services())
        return sorted(name for name in set(found) if everything or not is_bookkeeping(name))

    async def records(self, name: str) -> list[Record]:
        """Return the records of a service. Ends the command if there are none."""
        records = await self._asked(self.parts.registry.get(name))
        if not any(record.nodes or record.endpoints for record in records):
            raise await self.missing(name)
        return list(records)

    async def all_records(self) -> list[Record]:
        """Return the records of all services."""
        names = await self.names()
        found = await at_once(self._asked(self.parts.registry.get(name)) for name in names)
        return [record for records in found for record in records]

    async def missing(self, name: str) -> Failure:
        """Return how the command ends that asked for a service nobody runs."""
        try:
            known = await self.names()
        except Error:
            known = []
        hint = "nothing is registered there"
        if close := nearest(name, known):
            hint = f"did you mean {close!r}?"
        elif known:
            hint = "`shoal services` lists what there is"
        return Failure(
            f"there is no service {name!r} in the registry {self.registry_name}: {hint}", NOT_FOUND
        )

    async def _asked(self, question: Awaitable[T]) -> T:
        limit = self.options.client_request_timeout
        try:
            async with asyncio.timeout(limit):
                return await question
        except TimeoutError:
            raise Timeout(
                f"the registry {self.registry_name} did not answer within {limit:g} s"
            ) from None


def is_bookkeeping(name: str) -> bool:
    """Whether a name is how a broker finds its subscribers, no service."""
    return name in BOOKKEEPING or name.startswith("topic:")


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the known name that a mistyped one most resembles, empty if none does."""
    by_lower = {one.lower(): one for one in known}
    close = get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[close[0]] if close else ""


async def at_once(questions: Iterable[Awaitable[T]]) -> list[T]:
    """Return the answers in the order of the questions, a few of which are asked at a time."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def ask(question: Awaitable[T]) -> T:
        async with limit:
            return await question

    return await asyncio.gather(*map(ask, questions))


def run(ctx: click.Context, work: Callable[[Fleet], Coroutine[Any, Any, T]]) -> T:
    """Do some work with the parts that the flags of the command name, and close them after it."""
    chosen = options(ctx)
    logging.basicConfig(
        level=getattr(logging, chosen.log_level.upper()), format="shoal: %(name)s: %(message)s"
    )
    try:
        return asyncio.run(_run(chosen, work))
    except asyncio.CancelledError:
        raise SystemExit(TERMINATED) from None


async def _run(chosen: Options, work: Callable[[Fleet], Coroutine[Any, Any, T]]) -> T:
    task = asyncio.current_task()
    assert task is not None
    with contextlib.suppress(NotImplementedError, ValueError, RuntimeError):  # no main thread
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    parts = build(chosen)
    try:
        return await work(Fleet(parts, chosen))
    finally:
        await parts.close()
