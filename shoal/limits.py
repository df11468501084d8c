"""Package limits is middleware that bounds how often and how many at once endpoints are called."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any, Literal

from shoal import context
from shoal._circuit import Circuit, blames
from shoal.errors import Error, TooManyRequests, Unavailable
from shoal.health import Gauge
from shoal.middleware import Call, Next

MOST = 10_000  # keys that are told apart at a time
PATIENCE = 10.0  # seconds to wait for others at most; a deadline may be earlier

Side = Literal["client", "server", "publisher", "subscriber"]
Key = Callable[[Call], str]


class _Limit:
    """What all of them have: the side and the endpoints they are for, and a key per call."""

    def __init__(self, endpoints: str | Sequence[str], side: Side, key: Key | None) -> None:
        self.endpoints = (endpoints,) if isinstance(endpoints, str) else tuple(endpoints)
        self.side = side
        self.refused = 0
        self._key = key or _endpoint
        self._meant: dict[str, bool] = {}

    def gauges(self) -> Iterator[Gauge]:
        """Yield how many calls it refused; any thread may ask."""
        yield Gauge("limit_refused", self.refused, self._labels())

    def _labels(self) -> dict[str, str]:
        kind = type(self).__name__
        return {"limit": kind, "side": self.side, "endpoints": ",".join(self.endpoints)}

    def _is_meant(self, call: Call) -> bool:
        if call.side != self.side:
            return False
        meant = self._meant.get(call.endpoint)
        if meant is None:
            meant = any(fnmatchcase(call.endpoint, pattern) for pattern in self.endpoints)
            meant = meant and not call.endpoint.startswith("Debug.")
            if len(self._meant) < MOST:
                self._meant[call.endpoint] = meant
        return meant


class RateLimit(_Limit):
    """Lets `rate` calls a second through, and `burst` at once after a pause; refuses the others.

    `endpoints` are names or patterns (`Greeter.*`). What has the same `key` shares one limit: the
    service and endpoint by default. A refusal is TooManyRequests with `retry_after`.
    """

    def __init__(
        self,
        rate: float,
        *,
        burst: float = 0.0,
        endpoints: str | Sequence[str] = "*",
        side: Side = "server",
        key: Key | None = None,
    ) -> None:
        super().__init__(endpoints, side, key)
        if rate <= 0:
            raise ValueError(f"a rate of {rate} would never let anything through")
        self.rate = rate
        self.burst = max(1.0, burst or rate)
        self._full: dict[str, float] = {}  # key -> loop time at which its bucket is full again

    def __repr__(self) -> str:
        return f"RateLimit({self.rate:g}/s on {self.side}s, {self.refused} refused)"

    async def __call__(self, call: Call, next: Next) -> Any:
        """Run a call, or refuse it."""
        if self._is_meant(call):
            self._take(self._key(call), asyncio.get_running_loop().time())
        return await next(call)

    def _take(self, key: str, now: float) -> None:
        full = max(self._full.get(key, now), now) + 1 / self.rate
        wait = full - now - self.burst / self.rate
        if wait > 1e-9:
            self.refused += 1
            error = TooManyRequests(f"{key[:100]}: more than {self.rate:g} calls a second")
            error.retry_after = wait
            raise error
        if key not in self._full and len(self._full) >= MOST:
            self._full = {key: when for key, when in self._full.items() if when > now}
            if len(self._full) >= MOST:
                self._full.pop(min(self._full, key=self._full.__getitem__))
        self._full[key] = full


class Bulkhead(_Limit):
    """Lets `most` calls run at once and `waiting` more wait for them; refuses the others.

    An endpoint so cannot use up what others need. Who waits does so for ten seconds or until the
    deadline of the running call. `endpoints` and `key` as for RateLimit. On the
    server a stream counts until it ends, on the client until it is open.
    """

    def __init__(
        self,
        most: int,
        *,
        waiting: int = 0,
        endpoints: str | Sequence[str] = "*",
        side: Side = "server",
        key: Key | None = None,
    ) -> None:
        super().__init__(endpoints, side, key)
        if most < 1:
            raise ValueError(f"a bulkhead for {most} calls would never let anything through")
        self.most = most
        self.waiting = waiting
        self.running: dict[str, int] = {}
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}

    def __repr__(self) -> str:
        running = sum(self.running.values())
        return f"Bulkhead({running} running, {self.most} may, {self.refused} refused)"

    def gauges(self) -> Iterator[Gauge]:
        """Yield how many calls run inside, and how many it refused; any thread may ask."""
        yield from super().gauges()
        yield Gauge("limit_running", sum(list(self.running.values())), self._labels())

    async def __call__(self, call: Call, next: Next) -> Any:
        """Run a call, perhaps after others, or refuse it."""
        if not self._is_meant(call):
            return await next(call)
        key = self._key(call)
        await self._enter(key)
        try:
            result = await next(call)
        except BaseException:
            self._leave(key)
            raise
        if call.stream and call.side == "server" and hasattr(result, "__aiter__"):
            return _Held(result, functools.partial(self._leave, key))
        self._leave(key)
        return result

    async def _enter(self, key: str) -> None:
        running = self.running.get(key, 0)
        if running < self.most:
            self.running[key] = running + 1
            return
        queue = self._queues.setdefault(key, deque())
        if len(queue) >= self.waiting:
            self.refused += 1
            raise TooManyRequests(
                f"{key[:100]}: {running} calls are running and {len(queue)} waiting already"
            )
        loop = asyncio.get_running_loop()
        turn = loop.create_future()
        queue.append(turn)
        deadline = context.current.get().deadline
        until = loop.time() + PATIENCE
        try:
            async with asyncio.timeout_at(until if deadline is None else min(until, deadline)):
                await turn
        except TimeoutError:
            self.refused += 1
            raise TooManyRequests(f"{key[:100]}: {running} calls did not leave in time") from None
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave(key)  # its turn had just come
            raise

    def _leave(self, key: str) -> None:
        queue = self._queues.get(key)
        while queue:
            turn = queue.popleft()
            if not turn.done():
                turn.set_result(None)  # it takes this one's place
                return
        self._queues.pop(key, None)
        self.running[key] -= 1
        if not self.running[key]:
            del self.running[key]


class _Held(AsyncIterator[Any]):
    """Items of a stream that keeps its place until it ends."""

    def __init__(self, items: Any, leave: Callable[[], None]) -> None:
        self._items = items
        self._next = items.__aiter__().__anext__
        self._leave: Callable[[], None] | None = leave

    async def __anext__(self) -> Any:
        try:
            return await self._next()
        except BaseException:
            self._end()
            raise

    async def aclose(self) -> None:
        """End the stream."""
        try:
            if (close := getattr(self._items, "aclose", None)) is not None:
                await close()
        finally:
            self._end()

    def _end(self) -> None:
        leave, self._leave = self._leave, None
        if leave is not None:
            leave()


class Breaker(_Limit):
    """Fails calls at once while half of them fail anyway, letting one through now and then.

    Opens after ten calls of which half failed within ten seconds: by Timeout, Unavailable or
    another code from 500 up. Callers then get Unavailable with `retry_after` instead of waiting.
    """

    def __init__(
        self,
        *,
        endpoints: str | Sequence[str] = "*",
        side: Side = "client",
        key: Key | None = None,
    ) -> None:
        super().__init__(endpoints, side, key)
        self.circuits: dict[str, Circuit] = {}

    def __repr__(self) -> str:
        is_open = sum(circuit.is_open for circuit in self.circuits.values())
        return f"Breaker({len(self.circuits)} watched, {is_open} open, {self.refused} refused)"

    def gauges(self) -> Iterator[Gauge]:
        """Yield how many circuits are open, and how many calls it refused; any thread may ask."""
        yield from super().gauges()
        is_open = sum(circuit.is_open for circuit in list(self.circuits.values()))
        yield Gauge("limit_open", is_open, self._labels())

    async def __call__(self, call: Call, next: Next) -> Any:
        """Run a call, or fail it."""
        if not self._is_meant(call):
            return await next(call)
        key, clock = self._key(call), asyncio.get_running_loop().time
        circuit = self.circuits.get(key)
        if circuit is None:
            if len(self.circuits) >= MOST:
                self.circuits.pop(min(self.circuits, key=lambda one: self.circuits[one].since))
            circuit = self.circuits[key] = Circuit(clock())
        if not circuit.allows(clock()):
            self.refused += 1
            error = Unavailable(f"{key[:100]} fails again and again, and is not called for now")
            error.unsent = True
            error.retry_after = circuit.until - clock()
            raise error
        try:
            result = await next(call)
        except Error as error:
            if blames(error) or isinstance(error, Unavailable):
                circuit.failed(clock())
            else:
                circuit.succeeded(clock())
            raise
        circuit.succeeded(clock())
        return result


def _endpoint(call: Call) -> str:
    return f"{call.service} {call.endpoint}".strip()
