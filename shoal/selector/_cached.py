"""Module _cached is the base of the selectors: it knows services without asking for each call."""

from __future__ import annotations

import asyncio
import logging
import random
from asyncio import get_running_loop
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextvars import Context
from typing import Any, TypedDict

from shoal import context
from shoal.errors import ServiceNotFound, Timeout, Unavailable
from shoal.health import Gauge
from shoal.plugins import plugin_name
from shoal.registry import Change, Node, Registry
from shoal.selector import Filter, Next, Selector, Strategy
from shoal.selector._health import Policy
from shoal.selector._nodes import Nodes
from shoal.selector._pool import ID, Choice

logger = logging.getLogger(__name__)

QUIET = 1.0  # seconds in which a service that was not found is not asked for again
FIRST_BACKOFF, LONGEST_BACKOFF = 0.1, 30.0


class Settings(TypedDict, total=False):
    """What every selector can be told."""

    ttl: float
    """Seconds after which a service is looked up again behind the scenes; 60."""
    timeout: float
    """Seconds a look-up may take; 10."""
    idle: float
    """Seconds after which a service nobody calls is forgotten; 300."""
    limit: int
    """Services known at the same time; 1024."""
    rng: random.Random
    """Where chance comes from, for tests that want the same every time."""


class _Entry:
    """A service that was asked for: its nodes, and what keeps them up to date."""

    def __init__(self, nodes: Nodes, choice: Choice, now: float) -> None:
        self.nodes = nodes
        self.choice = choice
        self.settled = asyncio.Event()  # nodes are known, or a look-up is over
        self.complete = asyncio.Event()  # a look-up is over
        self.waiting = 0
        self.failure: Exception | None = None
        self.failures = 0
        self.quiet_until = 0.0
        self.last_used = now
        self.dropped = False
        self.doubtful = False
        self.touched: set[str] = set()  # ids a watch told of while a look-up ran
        self.watch: asyncio.Task[None] | None = None
        self.lookup: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None


class CachedSelector(Selector):
    """Keeps the nodes of every service that was asked for, fed by a watch of the registry.

    While the registry cannot be asked, the nodes known last are given. One selector serves one
    event loop until it is closed.
    """

    policy = Policy()

    def __init__(
        self,
        registry: Registry,
        strategy: Strategy,
        *,
        ttl: float = 60.0,
        timeout: float = 10.0,
        idle: float = 300.0,
        limit: int = 1024,
        rng: random.Random | None = None,
    ) -> None:
        self._registry = registry
        self._strategy = strategy
        self._ttl = ttl
        self._timeout = timeout
        self._idle = idle
        self._limit = limit
        self._rng = rng or random.Random(random.random())
        self._loop: asyncio.AbstractEventLoop | None = None
        self._entries: dict[str, _Entry] = {}
        self._nodes: dict[str, Nodes] = {}
        self._ready: dict[str, Next] = {}  # services with nodes: what most calls need
        self._tasks: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        out = sum(len(nodes.health.out) for nodes in self._nodes.values())
        doubtful = sum(len(nodes.doubt.ids) for nodes in self._nodes.values())
        failing = sum(entry.failure is not None for entry in self._entries.values())
        return (
            f"{type(self).__name__}({self._registry!r}, {len(self._entries)} services,"
            f" {sum(len(nodes.loads) for nodes in self._nodes.values())} nodes,"
            f" {out} of them out, {doubtful} in doubt, {failing} services stale)"
        )

    def gauges(self) -> Iterator[Gauge]:
        """Yield what is known of every service, in numbers; any thread may ask."""
        for name, entry in list(self._entries.items()):
            nodes, labels = entry.nodes, {"service": name}
            loads = list(nodes.loads.values())
            in_flight = sum(load.in_flight for load in loads)
            yield Gauge("selector_nodes", len(loads), labels)
            yield Gauge("selector_nodes_out", len(nodes.health.out), labels)
            yield Gauge("selector_nodes_doubtful", len(nodes.doubt.ids), labels)
            yield Gauge("selector_calls_in_flight", in_flight, labels)
            yield Gauge("selector_stale", float(entry.failure is not None), labels)

    @property
    def ready(self) -> Mapping[str, Next]:
        return self._ready

    async def select(
        self, service: str, *, filters: Sequence[Filter] = (), strategy: Strategy | None = None
    ) -> Next:
        choose = self._ready.get(service)
        if choose is None:
            self._bind()  # not for every call: asking for the running loop is a system call
            choose = (await self._find(service)).__call__
        if not filters and strategy is None:
            return choose
        entry = self._entries[service]
        if not entry.complete.is_set():
            # What a watch told meanwhile is not all there is to choose from.
            await self._wait(entry, entry.complete)
        pool = entry.nodes.view(filters) if filters else entry.nodes.pool
        return Choice(pool, strategy or self._strategy)

    def mark(self, service: str, node: Node, error: Exception | None, elapsed: float) -> None:
        nodes = self._nodes.get(service)
        if nodes is not None:
            nodes.mark(node, error, elapsed)
            if error is not None and nodes.doubt.ids and nodes.disprove(node, error):
                self._publish(self._entries[service])

    async def close(self) -> None:
        if self._loop is not None and self._loop.is_closed():
            self._tasks.clear()  # they ended with their loop
        elif self._loop is not None:
            self._bind()
        for name in list(self._entries):
            self._drop(name)
        tasks = list(self._tasks)
        self._loop = None
        if tasks:
            await asyncio.wait(tasks)

    def _bind(self) -> None:
        loop = get_running_loop()
        if self._loop is None:
            self._loop = loop
        elif self._loop is not loop:
            raise RuntimeError(
                f"{type(self).__name__} serves one event loop and is used from another: make one"
                " selector for each loop, or close it before"
            )

    # Look-ups

    async def _find(self, service: str) -> Choice:
        """Wait until the nodes of a service are known."""
        loop = get_running_loop()
        entry = self._entries.get(service) or self._enter(service)
        entry.choice.used = True
        if entry.settled.is_set() and loop.time() >= entry.quiet_until:
            entry.settled.clear()
            self._refresh(entry)
        await self._wait(entry, entry.settled)
        if entry.nodes.loads:
            return entry.choice
        if entry.dropped:
            raise Unavailable(
                f"the search for service {service!r} was given up: the selector was closed, or"
                f" has more than {self._limit} services to look for",
                id=ID,
            )
        if entry.failure is not None:
            raise Unavailable(
                f"cannot find service {service!r}: {self._registry!r} cannot be asked:"
                f" {entry.failure}",
                id=ID,
            ) from entry.failure
        raise ServiceNotFound(
            f"service {service!r}: not found in the registry {plugin_name(self._registry)!r}; check"
            " that it runs, that it registers under this name and that both sides use the same"
            " registry",
            id=ID,
        )

    async def _wait(self, entry: _Entry, event: asyncio.Event) -> None:
        entry.waiting, begun = entry.waiting + 1, get_running_loop().time()
        try:
            async with asyncio.timeout_at(context.current.get().deadline):
                await event.wait()
        except TimeoutError:
            raise Timeout(
                f"{self._registry!r} did not tell who runs {entry.nodes.name!r} before the deadline"
                f" of the call, {get_running_loop().time() - begun:.3f} s after it was asked",
                id=ID,
            ) from None
        finally:
            entry.waiting -= 1

    def _enter(self, service: str) -> _Entry:
        if len(self._entries) >= self._limit:
            self._make_room()
        loop = get_running_loop()
        nodes = Nodes(service, clock=loop.time, rng=self._rng, policy=self.policy)
        entry = _Entry(nodes, Choice(nodes.pool, self._strategy), loop.time())
        self._entries[service] = entry
        self._nodes[service] = nodes
        entry.watch = self._spawn(self._follow(entry))
        return entry

    def _make_room(self) -> None:
        """Forget a service: one nobody runs, else one nobody calls, else the oldest."""
        idle = [one for one in self._entries.values() if not one.waiting and not one.nodes.busy()]
        for entry in idle or self._entries.values():
            if not entry.nodes.loads:
                break
        else:
            entry = min(
                idle or self._entries.values(), key=lambda one: (one.choice.used, one.last_used)
            )
        self._drop(entry.nodes.name)

    def _drop(self, service: str) -> None:
        entry = self._entries.pop(service)
        del self._nodes[service]
        self._ready.pop(service, None)
        entry.dropped = True
        entry.settled.set()
        entry.complete.set()
        if entry.timer is not None:
            entry.timer.cancel()
        for task in (entry.watch, entry.lookup):
            if task is not None and task in self._tasks:
                task.cancel()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        # Without the context of the call that happened to be first: its deadline is not theirs.
        task = get_running_loop().create_task(work, context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _refresh(self, entry: _Entry) -> None:
        """Ask the registry, unless that is under way."""
        if entry.lookup is None and not entry.dropped:
            entry.touched = set()
            entry.lookup = self._spawn(self._look_up(entry))

    async def _look_up(self, entry: _Entry) -> None:
        name = entry.nodes.name
        missing = False
        try:
            async with asyncio.timeout(self._timeout):
                records = await self._registry.get(name)
        except Exception as error:
            self._failed(entry, error)
        else:
            if entry.failure is not None:
                logger.info("%r tells again who runs service %r", self._registry, name)
            entry.failure = None
            entry.failures = 0
            before = bool(entry.nodes.doubt.ids)
            missing = entry.nodes.replace(records, entry.touched)
            if before:
                self._tell_doubt(entry)
        entry.lookup = None
        loop = get_running_loop()
        # Only who was not found is not asked for again at once.
        entry.quiet_until = 0.0 if entry.nodes.loads else loop.time() + QUIET
        self._publish(entry)
        entry.settled.set()
        entry.complete.set()
        delay = self._ttl * self._rng.uniform(0.9, 1.0)
        if missing:
            delay = min(delay, QUIET)
        if entry.failure is not None:
            delay = min(delay, self._backoff(entry.failures))
        self._schedule(entry, delay)

    def _failed(self, entry: _Entry, error: Exception) -> None:
        if isinstance(error, TimeoutError):
            error = Unavailable(f"no answer within {self._timeout:g} s", id=ID)
        if entry.failure is None:
            first = all(other.failure is None for other in self._entries.values())
            logger.log(
                logging.WARNING if first else logging.DEBUG,
                "%r cannot tell who runs service %r, %d nodes stay known: %s",
                self._registry,
                entry.nodes.name,
                len(entry.nodes.loads),
                error,
            )
        entry.failure = error
        entry.failures += 1

    def _publish(self, entry: _Entry) -> None:
        """Let calls find the nodes at once, or no more."""
        name = entry.nodes.name
        if entry.nodes.loads:
            self._ready[name] = entry.choice.__call__  # a method costs less to call than an object
            entry.settled.set()
        else:
            self._ready.pop(name, None)

    def _tell_doubt(self, entry: _Entry) -> None:
        """Warn of a registry that still knows nobody, though nodes have answered meanwhile."""
        doubtful = len(entry.nodes.doubt.ids)
        if doubtful and not entry.doubtful:
            logger.warning(
                "%r tells of no node of service %r any more; the %d known last are called as long"
                " as they answer",
                self._registry,
                entry.nodes.name,
                doubtful,
            )
        elif entry.doubtful and not doubtful and entry.nodes.loads:
            logger.info("%r tells again who runs service %r", self._registry, entry.nodes.name)
        entry.doubtful = bool(doubtful)

    def _schedule(self, entry: _Entry, delay: float) -> None:
        if entry.timer is not None:
            entry.timer.cancel()
        entry.timer = get_running_loop().call_later(delay, self._tick, entry, context=Context())

    def _tick(self, entry: _Entry) -> None:
        """Look a service up again when its time has come, or forget it."""
        now = get_running_loop().time()
        if entry.choice.used or entry.waiting:
            entry.choice.used = False
            entry.last_used = now
        elif now - entry.last_used >= self._idle and not self._needed(entry):
            self._drop(entry.nodes.name)
            return
        self._refresh(entry)

    def _needed(self, entry: _Entry) -> bool:
        # What a registry in trouble told last cannot be had again.
        return entry.nodes.busy() or (entry.failure is not None and bool(entry.nodes.loads))

    # Watching

    async def _follow(self, entry: _Entry) -> None:
        """Watch a service as long as it is known, with a look-up whenever the watch begins."""
        loop = get_running_loop()
        failures = 0
        while True:
            self._refresh(entry)  # it begins after the watch's first step: nothing is missed
            started = loop.time()
            reason: object = "it ended"
            try:
                await self._watch(entry)
            except Exception as error:
                reason = error
            failures = failures + 1 if loop.time() - started < LONGEST_BACKOFF else 1
            logger.debug("watching %r in %r anew: %s", entry.nodes.name, self._registry, reason)
            await asyncio.sleep(self._backoff(failures))

    async def _watch(self, entry: _Entry) -> None:
        changes = self._registry.watch(entry.nodes.name)
        try:
            async for change in changes:
                self._apply(entry, change)
        finally:
            close = getattr(changes, "aclose", None)  # an iterator need not have it
            if close is not None:
                await close()

    def _apply(self, entry: _Entry, change: Change) -> None:
        record = change.record
        nodes = entry.nodes
        if record.name != nodes.name:
            return
        if change.action == "delete":
            if entry.failure is not None:
                return  # a registry in trouble forgets nodes that are well
            nodes.remove(record)
        else:
            nodes.update(record)
        if entry.lookup is not None:
            entry.touched.update(node.id for node in record.nodes)
        self._publish(entry)

    def _backoff(self, failures: int) -> float:
        longest = min(FIRST_BACKOFF * 2.0 ** min(failures, 20), LONGEST_BACKOFF)
        return longest * self._rng.uniform(0.5, 1.0)
