"""Module rpc is the client: it finds a node, sends the request and gives back the reply."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager, nullcontext, suppress
from types import MappingProxyType
from typing import Any, Unpack

from msgspec.structs import replace

from shoal import context, wire
from shoal.broker import Broker
from shoal.client import CallOptions, Client, Reply, Request, Stream
from shoal.client._breaker import Breakers
from shoal.client._call import (
    Apart,
    Attempts,
    Given,
    Mark,
    Outgoing,
    cut,
    mark_nothing,
    metadata_of,
    said,
    sooner,
    within,
)
from shoal.client._exchange import Exchanges
from shoal.client._hedge import Hedges
from shoal.client._pool import Pool
from shoal.client._publish import publish
from shoal.client._repeats import Repeats, backoff
from shoal.client._settings import ClientSettings
from shoal.client._stream import RpcStream, late
from shoal.deadlines import OUTSIDE, TICK, Deadlines, Limit
from shoal.errors import (
    BadRequest,
    ConnectionClosed,
    Error,
    Timeout,
)
from shoal.health import Gauge, gauges
from shoal.middleware import Call, Middleware, chain
from shoal.registry import Node
from shoal.selector import GaveUp, Next, Selector
from shoal.transport import Socket, Transport

MOMENT = 0.0005  # seconds that `Timeout` does not tell
_NOTHING: Mapping[str, str] = MappingProxyType({})


class RpcClient(Client):
    """Calls over a transport, to nodes a selector chooses."""

    def __init__(
        self,
        transport: Transport,
        selector: Selector,
        broker: Broker,
        codecs: wire.Codecs,
        *,
        middleware: Sequence[Middleware] = (),
        settings: ClientSettings | None = None,
    ) -> None:
        settings = settings or ClientSettings()
        self._selector = selector
        self._broker = broker
        self._codecs = codecs
        self._timeout = settings.timeout
        self._timeout_value = wire.timeout_value(settings.timeout)
        self._route_service, self._route_address = settings.route
        self._routed = bool(self._route_service or self._route_address)
        self._ready = selector.ready
        self._pool = Pool(transport, size=settings.pool_size, ttl=settings.pool_ttl)
        self._exchanges = Exchanges(self._pool, codecs)
        self._repeats = Repeats(settings.retries)
        self._breakers = Breakers()
        self._hedges = Hedges(self._repeats.budget.spend)
        self._deadlines: Deadlines | None = None
        self._call = chain(middleware, self._run_call) if middleware else None
        self._open = chain(middleware, self._run_open) if middleware else None
        self._publish = chain(middleware, self._run_publish) if middleware else self._run_publish

    def __repr__(self) -> str:
        return f"RpcClient({self._selector!r}, {self._pool!r})"

    def gauges(self) -> Iterator[Gauge]:
        """Yield what it holds now, in numbers; any thread may ask."""
        return gauges(self._pool, self._repeats.budget, self._breakers, self._hedges)

    # Calls

    def call(
        self, request: Request[Reply], **options: Unpack[CallOptions]
    ) -> Coroutine[Any, Any, Reply]:
        if self._call is not None:
            return self._through(Outgoing.of(request, options), self._call)
        run = self._hedged if options and options.get("hedge") else self._run
        return run(request, options, _NOTHING)

    async def _through(self, call: Outgoing, run: Callable[[Call], Awaitable[Any]]) -> Any:
        return await run(call)

    def _run_call(self, call: Call) -> Awaitable[Any]:
        assert isinstance(call, Outgoing)
        request = replace(call.request, message=call.message)
        run = self._hedged if call.options.get("hedge") else self._run
        return run(request, call.options, context.checked(call.header))

    async def _hedged(
        self, request: Request[Any], options: CallOptions, added: Mapping[str, str]
    ) -> Any:
        """Send the request to one node, and to a second if the first is slow."""
        if not options.get("idempotent"):
            raise BadRequest("only an idempotent call can be hedged: its handler runs twice")
        loop, given = self._bound().loop, list[str]()
        when = loop.time() + options.get("timeout", self._timeout)

        def run() -> Coroutine[Any, Any, Any]:
            left: CallOptions = {**options, "timeout": when - loop.time()}
            return self._run(request, left, added, given)

        return await self._hedges.run((request.service, request.endpoint), run(), run)

    async def _run(
        self, request: Request[Any], options: CallOptions, added: Mapping[str, str],
        given: list[str] | None = None,
    ) -> Any:  # fmt: skip
        """Send the request to one node, and to others as long as that is safe and in time."""
        deadlines, exchanges, breakers = self._bound(), self._exchanges, self._breakers
        service, loop, running = request.service, deadlines.loop, context.current.get()
        started = begun = loop.time()
        limit, timeout = Limit(deadlines, begun + self._timeout), self._timeout_value
        if options or added or running is not context.NOTHING:
            added, timeout = metadata_of(running, options, added), ""
            limit.when = sooner(begun + options.get("timeout", self._timeout), running.deadline)
        attempts: Attempts | None = None
        self._repeats.calls += 1
        limit.begin()
        try:
            if limit.when <= begun:
                raise TimeoutError
            mark: Mark = self._selector.mark
            choose = self._ready.get(service)
            if choose is None or options or self._routed:
                service, choose, mark = await self._chooser(service, options, given)
                begun = loop.time()
            node = choose(self._avoid(service, request, ()) if breakers.circuits else ())
            while True:
                attempt, socket = limit, None
                try:
                    if options:
                        attempt = within(limit, options, begun)
                    if not timeout or attempt is not limit or begun - started >= MOMENT:
                        timeout = wire.timeout_value(attempt.when - begun)
                    target, message, socket, idle = exchanges.start(request, node, timeout, added)
                    if socket is None:
                        socket = await exchanges.send(message, service, node, idle)
                    reply = await socket.recv()
                    self._pool.give(node.address, socket, begun)
                    socket = None
                    result = target.read(reply, request.reply)
                except BaseException as error:
                    attempts = attempts or Attempts(request, options, started, limit, given)
                    self._failed(attempts, error, node, socket, begun, attempt, service, mark)
                else:
                    if attempt is not limit:
                        attempt.end()
                    mark(service, node, None, loop.time() - begun)
                    if breakers.circuits:
                        breakers.succeeded((service, request.endpoint), node.id, loop.time())
                    return result
                service, choose, mark, node = await self._next(attempts, service, choose, mark)
                begun = loop.time()
        except (TimeoutError, asyncio.CancelledError) as error:
            if isinstance(error, asyncio.CancelledError) and not limit.end():
                raise
            attempts = attempts or Attempts(request, options, started, limit, given)
            raise attempts.late(loop.time()) from None
        finally:
            limit.end()

    def _failed(  # what an attempt has
        self, attempts: Attempts, error: BaseException, node: Node, socket: Socket | None,
        begun: float, attempt: Limit, service: str, mark: Mark,
    ) -> None:  # fmt: skip
        """Take in how an attempt failed; raise its error unless another one may follow."""
        limit, now = attempts.limit, self._bound().loop.time()
        attempts.node = node
        if attempt is not limit and cut(attempt, error, now):
            error = attempts.slow(begun, attempt.when, now)
        self._exchanges.end(socket, service, error)
        says = said(error, limit)
        mark(service, node, says, now - begun)
        self._breakers.failed((service, attempts.request.endpoint), node.id, says, now)
        if not isinstance(error, Error):
            raise error
        if isinstance(error, Timeout) and now >= limit.when - TICK:
            raise TimeoutError from None  # the node was a little faster to say so
        attempts.explain(error, now - begun)
        if not self._repeats.may(attempts, error):
            raise error
        attempts.failed(error)

    async def _next(
        self, attempts: Attempts, service: str, choose: Next, mark: Mark
    ) -> tuple[str, Next, Mark, Node]:
        """Return another node when it is time to try that. Raises the last error if none is."""
        tried, request = attempts.tried, attempts.request
        if len(tried) > 1:
            await asyncio.sleep(backoff(len(tried)))
        if service not in self._ready and mark is not mark_nothing:
            # Nobody is left: the registry may know others, or the same elsewhere.
            service, choose, mark = await self._chooser(
                request.service, attempts.options, attempts.given
            )
            tried = attempts.tried = ("",) * len(tried)
        node = choose(self._avoid(service, request, tried))
        if attempts.last is not None and attempts.knows(node):
            mark(service, node, GaveUp(), 0.0)  # there is no other one to go to
            raise attempts.last
        return service, choose, mark, node

    def _avoid(self, service: str, request: Request[Any], tried: Sequence[str]) -> Sequence[str]:
        now = self._bound().loop.time()
        return self._breakers.avoid((service, request.endpoint), tried, now)

    async def _chooser(
        self, service: str, options: CallOptions, given: list[str] | None = None
    ) -> tuple[str, Next, Mark]:
        addresses = options.get("address") or self._route_address
        service = self._route_service or service
        if addresses:
            nodes = [addresses] if isinstance(addresses, str) else addresses
            choose: Next = Given(nodes)
        else:
            choose = await self._selector.select(
                service, filters=options.get("filters", ()), strategy=options.get("strategy")
            )
        if given is not None:
            choose = Apart(choose, given)
        return service, choose, mark_nothing if addresses else self._selector.mark

    def _bound(self) -> Deadlines:
        """Return the deadlines of the loop that used this client first.

        A limit they set tells who is not of that loop: to ask for the running one is a system call,
        too much for every call.
        """
        deadlines = self._deadlines
        if deadlines is None or deadlines.loop.is_closed():
            deadlines = self._deadlines = Deadlines(asyncio.get_running_loop())
        return deadlines

    def _at_home(self) -> Deadlines:
        """Return the same, where a system call does not matter and no deadline tells."""
        deadlines = self._bound()
        if deadlines.loop is not asyncio.get_running_loop():
            raise RuntimeError(OUTSIDE)
        return deadlines

    # Streams

    @asynccontextmanager
    async def stream(
        self, request: Request[Reply], **options: Unpack[CallOptions]
    ) -> AsyncIterator[Stream[Reply]]:
        deadlines = self._at_home()
        loop = deadlines.loop
        running = context.current.get()
        started = loop.time()
        timeout = options.get("timeout")
        when = running.deadline
        if timeout is not None:
            when = sooner(started + timeout, when)
        opening = Outgoing.of(request, options)
        opening.stream = True
        opening.when = when
        opening.started = started
        try:
            with nullcontext() if when is None else deadlines.until(when):
                stream: Stream[Reply] = await (self._open or self._run_open)(opening)
        except TimeoutError:
            if when is None or loop.time() < when:
                raise  # the middleware's own
            raise late(request, when - started, loop.time() - started) from None
        # From here on the stream itself ends in time. Its user may be a generator, which must not
        # cancel whatever its caller does between two items.
        try:
            yield stream
            with suppress(ConnectionClosed):  # the peer was faster
                await stream.close_send()
        finally:
            await stream.close()

    async def _run_open(self, call: Call) -> Any:
        assert isinstance(call, Outgoing)
        call.request = request = replace(call.request, message=call.message)
        service, choose, mark = await self._chooser(request.service, call.options)
        tried: list[str] = []
        while True:
            node = choose(tried)
            try:
                stream = await self._open_on(node, call)
            except Error as error:
                mark(service, node, error, 0.0)
                if not error.unsent or node.id in tried or not self._repeats.move(error):
                    raise
                tried.append(node.id)
                if service not in self._ready:
                    service, choose, mark = await self._chooser(service, call.options)
                    tried = [""]
            except BaseException:
                mark(service, node, GaveUp(), 0.0)
                raise
            else:
                mark(service, node, None, 0.0)
                return stream

    async def _open_on(self, node: Node, call: Outgoing) -> RpcStream[Any]:
        request = call.request
        target = self._exchanges.target(request, node)
        id = str(next(self._exchanges.ids))
        metadata = metadata_of(context.current.get(), call.options, context.checked(call.header))
        header = {**metadata, "Micro-Id": id, "Micro-Stream": id}
        if call.when is not None:
            header["Timeout"] = wire.timeout_value(call.when - asyncio.get_running_loop().time())
        socket = await self._exchanges.dial(request.service, node)
        try:
            stream: RpcStream[Any] = RpcStream(
                socket,
                target.codec,
                request.reply,
                target.shared,
                header,
                tells_end="shoal" in node.metadata,
            )
            await stream.open()
            if request.message is not None:
                await stream.send(request.message)
        except BaseException:
            await socket.close()
            raise
        if call.when is not None:
            stream.expire_at(call.when, call.started, request)
        return stream

    # Events

    async def publish(
        self, topic: str, event: object, *, metadata: Mapping[str, str] | None = None
    ) -> None:
        self._at_home()
        call = Call("publisher", "", topic, event, context.checked(metadata or {}))
        await self._publish(call)

    async def _run_publish(self, call: Call) -> None:
        await publish(self._broker, self._codecs, call, self._timeout, self._bound())

    async def close(self) -> None:
        await self._pool.close()
        if self._deadlines is not None:
            self._deadlines.close()
