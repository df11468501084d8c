"""Module _multi_parts is what several registries in one are made of."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from shoal import plugins
from shoal.errors import BadRequest, Error, Unavailable
from shoal.registry import Record, Registry
from shoal.registry._records import copied
from shoal.tls import Tls

logger = logging.getLogger(__name__)

_REMEMBERED = 1024  # answers of one registry

T = TypeVar("T")


class Part:
    """One registry of several; `error` says why it did not do what it was asked for last."""

    def __init__(self, registry: Registry | str, tls: Tls | None, *, writes: bool) -> None:
        """Take a registry, or make one that is closed with this part; raises PluginError."""
        self.owned = isinstance(registry, str)
        self.writes = writes
        if isinstance(registry, str):
            self.name, _, address = registry.partition("://")
            self.registry = _made(self.name, address, tls)
        else:
            self.name, self.registry = type(registry).__name__, registry
        self.failure: Error | None = None
        self._answers: OrderedDict[str, list[Record]] = OrderedDict()

    def __repr__(self) -> str:
        name = self.name if self.writes else f"read:{self.name}"
        return f"{name} ({self.error})" if self.error else name

    @property
    def error(self) -> Exception | None:
        """Why it is not well, by what it last did or says of itself."""
        own: Exception | None = getattr(self.registry, "error", None)
        return self.failure or own

    async def do(self, work: Callable[[Registry], Awaitable[T]], timeout: float) -> T:
        """Do something with the registry and note how it went; raises Unavailable, BadRequest."""
        try:
            async with asyncio.timeout(timeout):
                result = await work(self.registry)
        except TimeoutError as error:
            late = Unavailable(f"the registry {self.name} has not answered within {timeout:g} s")
            self.note(late)
            raise late from error
        except Error as error:
            self.note(error)
            raise
        self.note(None)
        return result

    def note(self, failure: Error | None) -> None:
        """Keep how it went, and write down when that changes."""
        if failure is not None and self.failure is None:
            logger.warning("multi: the registry %s is left out: %s", self.name, failure)
        elif failure is None and self.failure is not None:
            logger.info("multi: the registry %s is back", self.name)
        self.failure = failure

    async def get(self, name: str, timeout: float) -> tuple[list[Record], Exception | None]:
        """Return what it knows of a service, or knew last and why it cannot say it now."""
        try:
            found = list(await self.do(lambda registry: registry.get(name), timeout))
        except Error as error:
            return [copied(record) for record in self._answers.get(name, ())], error
        self._answers.pop(name, None)
        if found:
            self._answers[name] = [copied(record) for record in found]
            if len(self._answers) > _REMEMBERED:
                self._answers.popitem(last=False)
        return found, None


def parts_of(address: str) -> tuple[list[str], list[str]]:
    """Return writers and readers of `mdns,consul://a:8500,b:8500,read:etcd://c:2379`.

    What names no registry is one more address of the one before. Raises BadRequest.
    """
    known = set(plugins.names("registry"))
    found: list[str] = []
    for piece in address.split(","):
        name = piece.strip().removeprefix("read:").partition("://")[0]
        if "://" in piece or name in known:
            found.append(piece.strip())
        elif found:
            found[-1] += f",{piece}"
        elif piece.strip():
            raise BadRequest(
                f"multi: {name!r} is no registry: known are {', '.join(sorted(known))}"
            )
    writers = [part for part in found if not part.startswith("read:")]
    return writers, [part.removeprefix("read:") for part in found if part.startswith("read:")]


def all_failed(problems: Sequence[Exception]) -> Error:
    """Return the one error that says what was wrong with each part."""
    texts = "; ".join(dict.fromkeys(str(problem) for problem in problems))
    if problems and all(isinstance(problem, BadRequest) for problem in problems):
        return BadRequest(texts)
    return Unavailable(texts)


def _made(name: str, address: str, tls: Tls | None) -> Registry:
    make = plugins.load("registry", name)
    offered: dict[str, Any] = {"tls": tls} | ({"address": address} if address else {})
    taken = inspect.signature(make).parameters
    made: Registry = make(**{key: value for key, value in offered.items() if key in taken})
    return made
