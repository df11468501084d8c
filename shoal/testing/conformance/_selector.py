"""Module _selector is what the tests of selectors are made of."""

from __future__ import annotations

import asyncio
import itertools
from abc import abstractmethod
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import ClassVar

from shoal.errors import (
    ServiceNotFound,
    Unavailable,
)
from shoal.registry import Change, Endpoint, Node, Record, Registry
from shoal.registry.memory import MemoryRegistry
from shoal.selector import Filter, Load, Selector, Strategy

names = (f"greeter-{number}" for number in itertools.count())


class FaultyRegistry(MemoryRegistry):
    """A memory registry that counts questions, and that can fail, hang and forget."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()
        self.down = False
        self.answer = asyncio.Event()
        self.answer.set()

    async def get(self, name: str) -> list[Record]:
        self.asked[name] += 1
        self._check()
        await self.answer.wait()
        return await super().get(name)

    async def watch(self, name: str | None = None) -> AsyncIterator[Change]:
        self._check()
        async for change in super().watch(name):
            yield change

    def break_watches(self) -> None:
        """End all watches as a lost connection does."""
        for feed in list(self._watches):
            feed.end(Unavailable("the watch was lost"))

    @property
    def watched(self) -> int:
        """How many watches are running."""
        return len(self._watches)

    def _check(self) -> None:
        if self.down:
            raise Unavailable("the registry is down")


class SelectorSetting:
    """One selector and the registry it asks, and what the tests do with them.

    The attributes say what a selector truly cannot do or does another way; a suite of yours sets
    them.
    """

    deadline: ClassVar[float] = 20.0
    """Seconds until a change in the registry surely has an effect."""
    caches: ClassVar[bool] = True
    """Whether it keeps what the registry said, and so works while that is down."""
    failures_to_leave_out: ClassVar[int] = 1
    """How often in a row a node must fail to be left out, 0 if it never is."""
    leaves_out_for: ClassVar[float] = 0.2
    """Seconds for which it surely gets no calls then."""
    brings_back: ClassVar[bool] = True
    """Whether it soon gets calls again when it works."""
    serves_when_all_are_out: ClassVar[bool] = True
    handler_errors_count: ClassVar[bool] = False
    """Whether errors of handlers (code 500) count as failures of the node."""

    @abstractmethod
    def make(self, registry: Registry) -> Selector:
        """Return a selector for the registry."""

    # How the tests do it

    @asynccontextmanager
    async def _setup(self) -> AsyncIterator[tuple[FaultyRegistry, Selector]]:
        registry = FaultyRegistry()
        selector = self.make(registry)
        async with asyncio.timeout(6 * self.deadline):
            try:
                yield registry, selector
            finally:
                registry.answer.set()
                await selector.close()
                await registry.close()

    async def _calls(self, selector: Selector, name: str, count: int) -> Counter[str]:
        """Make calls, one after the other, and return how many each node got."""
        return Counter([(await call(selector, name)).id for _ in range(count)])

    async def _given(self, selector: Selector, name: str, count: int = 60) -> set[str]:
        return set(await self._calls(selector, name, count))

    async def _missing(self, selector: Selector, name: str) -> bool:
        try:
            await selector.select(name)
        except ServiceNotFound:
            return True
        return False

    async def _fail(self, selector: Selector, name: str, id: str, error: Exception) -> None:
        def this(service: str, loads: Sequence[Load]) -> Load:
            return next(load for load in loads if load.node.id == id)

        choose = await selector.select(name, strategy=this)
        for _ in range(self.failures_to_leave_out):
            selector.mark(name, choose(), error, 0.001)

    async def _still_gets_calls(self, *errors: Exception) -> None:
        async with self._setup() as (registry, selector):
            nodes = await run(registry, name := next(names), 2)
            for node in nodes:
                for error in errors:
                    await self._fail(selector, name, node.id, error)
            assert await self._given(selector, name, 200) == {node.id for node in nodes}

    async def _becomes(self, ask: Callable[[], Awaitable[object]], wanted: object) -> None:
        """Ask until the answer is the wanted one."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self.deadline
        while (answer := await ask()) != wanted:
            assert loop.time() < until, f"{answer!r} did not become {wanted!r}"
            await asyncio.sleep(0.01)


async def call(
    selector: Selector,
    name: str,
    tried: Sequence[str] = (),
    *,
    filters: Sequence[Filter] = (),
    strategy: Strategy | None = None,
) -> Node:
    """Make a call that goes well and return the node that got it."""
    node = (await selector.select(name, filters=filters, strategy=strategy))(tried)
    selector.mark(name, node, None, 0.001)
    return node


async def ready(value: object) -> object:
    """Return a value that is at hand where one is awaited."""
    return value


async def run(
    registry: Registry,
    name: str,
    count: int,
    *,
    release: str = "latest",
    zone: str = "a",
    first: int = 0,
) -> list[Node]:
    """Register nodes `node-<number>` of a service and return them."""
    nodes = [
        Node(f"node-{number}", f"127.0.0.1:{5000 + number}", {"zone": zone})
        for number in range(first, first + count)
    ]
    endpoints = (Endpoint("Greeter.Hello"),)
    await registry.register(Record(name, release, tuple(nodes), endpoints))
    return nodes
