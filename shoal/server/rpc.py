"""Module rpc is the server: it runs handlers for requests and subscribers for events."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from shoal import wire
from shoal.broker import Broker, Subscription
from shoal.codec import Codec
from shoal.deadlines import Deadlines
from shoal.endpoints import Method, methods
from shoal.errors import Error
from shoal.health import Gauge, Readiness
from shoal.message import Header, Message
from shoal.middleware import Call, Middleware, chain
from shoal.plugins import plugin_name
from shoal.registry import Endpoint, Node, Record, Registry
from shoal.registry._advertise import advertised
from shoal.registry._discovery import Discovery
from shoal.registry._registration import Registration
from shoal.server import Server
from shoal.server._admission import Admission
from shoal.server._connection import Connection
from shoal.server._debug import SPANS, Debug
from shoal.server._door import Door
from shoal.server._incoming import Incoming
from shoal.server._settings import ServerSettings
from shoal.server._state import numbers, readiness
from shoal.server._subscriber import Subscriber
from shoal.server._threads import Threads
from shoal.transport import NO_METADATA, Listener, Socket, Transport

logger = logging.getLogger(__name__)

KNOWN = 1024  # heads of requests that are known
GOODBYE = 1.0  # seconds peers get to take the last messages and to close
QUIET = 0.25  # seconds in which the first request on a new connection has surely come


class RpcServer(Server):
    """Serves handlers over a transport, and registers itself under a name."""

    def __init__(
        self,
        name: str,
        *,
        transport: Transport,
        registry: Registry,
        broker: Broker,
        codecs: wire.Codecs,
        middleware: Sequence[Middleware] = (),
        settings: ServerSettings | None = None,
    ) -> None:
        self.name = name
        self.settings = settings or ServerSettings()
        self.codecs = codecs
        self.address = ""
        self.methods: dict[str, Method] = {}
        self.subscribers: list[Subscriber] = []
        self.record: Record | None = None
        self.rule = ""
        self.concurrency = self.settings.concurrency
        self.running = 0
        self.streams = 0
        """How many of the running ones stream."""
        self.requests = 0
        self.errors = 0
        self.refusing = False
        self.stopping = False
        self.known: dict[int, tuple[Header, Method, Codec, Header]] = {}
        """What unary requests ask for and what their replies share, by the identity of a head many
        of them have."""
        self.spans: deque[tuple[str, dict[str, str], float, float]] = deque(maxlen=SPANS)
        """Name and header of the last requests, and the loop's time when they began and ended."""
        self.idle: Callable[[], None] | None = None
        self.loop: asyncio.AbstractEventLoop
        self.deadlines: Deadlines
        self.admission: Admission
        self._transport = transport
        self._registry = registry
        self._broker = broker
        self._middleware = tuple(middleware)
        self._chain = chain(middleware, self._end) if middleware else None
        self._advertised: list[Endpoint] = []
        self._handlers: list[object] = []
        self._reply_headers: dict[str, Header] = {}
        self._listener: Listener | None = None
        self._registration: Registration | None = None
        self._discovery: Discovery | None = None
        self._subscriptions: list[Subscription] = []
        self.threads: Threads
        self._connections: set[Connection] = set()
        self._door = Door()
        self._debug = Debug(self)
        self.add(self._debug)

    def __repr__(self) -> str:
        return f"RpcServer({self.name!r} at {self.address or 'no address'}, {self.running} running)"

    # What is served

    def handle(self, handler: object, *, contract: Callable[..., Any] | None = None) -> None:
        for method in self.add(handler, contract):
            self._advertised.append(method.describe())
        self._handlers.append(handler)

    def add(self, handler: object, contract: Callable[..., Any] | None = None) -> list[Method]:
        """Serve a handler's methods without telling the registry of them, and return them."""
        if self._listener is not None:
            raise RuntimeError(f"{self.name} has started: register handlers before")
        found = methods(handler, contract)
        for method in found:
            if method.name in self.methods:
                raise ValueError(f"{method.name} is served by another handler already")
        self.methods.update((method.name, method) for method in found)
        return found

    def subscribe(self, topic: str, handler: Callable[..., Any], *, queue: str = "") -> None:
        if self._listener is not None:
            raise RuntimeError(f"{self.name} has started: subscribe before")
        self.subscribers.append(Subscriber(self, topic, handler, queue, self._middleware))

    # Running

    async def start(self) -> None:
        if self._listener is not None:
            raise RuntimeError(f"{self.name} has started already")
        self.loop = asyncio.get_running_loop()
        self.deadlines = Deadlines(self.loop)
        self.admission = Admission(
            self.name, self.concurrency, lambda: self.running - self.streams, self.deadlines
        )
        self.refusing = self.stopping = False
        self.threads = Threads(self.name, self.settings.threads, self.concurrency, self.deadlines)
        try:
            self._debug._start()
            self._listener = await self._transport.listen(self.settings.address, self._accept)
            self.address = self._listener.address
            self.record = self._describe()
            await self._broker.connect()
            for subscriber in self.subscribers:
                self._subscriptions.append(
                    await self._broker.subscribe(
                        subscriber.topic, subscriber.deliver, queue=subscriber.queue
                    )
                )
            registration = Registration(
                self._registry,
                self.record,
                ttl=self.settings.register_ttl,
                interval=self.settings.register_interval,
            )
            await registration.start()
            self._registration = registration
            self._discovery = Discovery(
                self._registry,
                self.record,
                interval=self.settings.register_interval or 30.0,
                renew=registration.renew,
            )
            self._discovery.start()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        self.stopping = True
        if self._discovery is not None:
            await self._discovery.stop()
            self._discovery = None
        if self._registration is not None:
            await self._registration.stop()
            self._registration = None
            await asyncio.sleep(self.settings.linger)
        self.refusing = True
        if self._listener is not None:
            self.admission.close()
            self.threads.line.close()
        # At once: calls and events have the same time to end in.
        await asyncio.gather(self._unsubscribe(), self._finish())
        if self._listener is not None:
            await self._leave()
            await self._listener.close()
            self._listener = None
            self.deadlines.close()
        if hasattr(self, "threads"):  # it had begun to start
            self.threads.close()
        self.address = ""
        self._debug._stop()

    def readiness(self) -> Readiness:
        """Return whether it should get work, with the reasons if not; any thread may ask."""
        return readiness(self)

    def gauges(self) -> Iterator[Gauge]:
        """Yield what it does and holds now, in numbers; any thread may ask."""
        return numbers(self)

    async def _unsubscribe(self) -> None:
        subscriptions, self._subscriptions = self._subscriptions, []
        ends = (subscription.unsubscribe() for subscription in subscriptions)
        for error in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(error, BaseException):
                logger.warning("%s could not unsubscribe: %s", self.name, error)

    async def _finish(self) -> None:
        """Wait for the calls that run, for the grace time at most."""
        if not self.running:
            return
        done = asyncio.Event()
        self.idle = lambda: None if self.running else done.set()
        try:
            async with asyncio.timeout(self.settings.grace):
                await done.wait()
        except TimeoutError:
            logger.warning("%s cancels %d calls that still run", self.name, self.running)
        finally:
            self.idle = None

    async def _leave(self) -> None:
        """Say on every connection, on new ones too, that no more requests are taken."""
        told: set[Connection] = set()
        silent: set[Connection] = set()
        end = self.loop.time() + GOODBYE
        while (new := self._connections - told) and self.loop.time() < end:
            tasks = []
            for connection in new:
                task = connection.leave()
                if task is not None:
                    tasks.append(task)
                if task is not None or connection in silent:  # it had its moment to speak
                    told.add(connection)
                else:
                    silent.add(connection)
            if tasks:
                await asyncio.wait(tasks, timeout=end - self.loop.time())
            if silent - told:
                await asyncio.sleep(QUIET)

    async def _accept(self, socket: Socket) -> None:
        if len(self._connections) >= self.settings.connections:
            await self._door.turn_away(self, socket)
            return
        connection = Connection(self, socket)
        self._connections.add(connection)
        try:
            await connection.serve()
        finally:
            self._connections.discard(connection)

    def _describe(self) -> Record:
        settings = self.settings
        address, self.rule = advertised(self.address, settings.advertise)
        metadata = {
            "broker": plugin_name(self._broker),
            "protocol": "mucp",
            "registry": plugin_name(self._registry),
            "server": "mucp",
            "transport": plugin_name(self._transport),
            **wire.SHOAL,
            **(NO_METADATA if self._listener is None else self._listener.metadata),
            **settings.metadata,
        }
        return Record(
            self.name,
            settings.version,
            nodes=(Node(f"{self.name}-{settings.id}", address, metadata),),
            endpoints=(
                *sorted(self._advertised, key=lambda endpoint: endpoint.name),
                *(subscriber.describe() for subscriber in self.subscribers),
            ),
        )

    # What connections and subscribers ask of their server

    def know(self, shared: Header, incoming: Incoming) -> None:
        """Remember what requests ask for whose heads begin like this one's."""
        if len(self.known) >= KNOWN:
            self.known.clear()
        self.known[id(shared)] = shared, incoming.method, incoming.codec, incoming.shared

    def at_ease(self) -> bool:
        """Whether a request may start as soon as it comes."""
        return self.admission.at_once and not self.refusing and self.running < self.concurrency

    def began(self) -> float:
        """Count a request that runs from now on, and return the loop's time."""
        self.requests += 1
        self.running += 1
        return self.loop.time()

    def ended(self, incoming: Incoming, started: float) -> None:
        """Count a request that runs no more."""
        self.running -= 1
        self.spans.append((incoming.method.name, incoming.header, started, self.loop.time()))
        if self.admission.line.waiting:
            self.admission.line.advance()
        if self.idle is not None:
            self.idle()

    def reply_header(self, content_type: str) -> Header:
        """Return the headers of replies in a content type, one object for all of them."""
        header = self._reply_headers.get(content_type)
        if header is None:
            header = self._reply_headers[content_type] = wire.reply_header(content_type)
        return header

    def failed(self, header: dict[str, str], error: Error, codec: Codec | None = None) -> Message:
        """Count a failed request and return its reply."""
        self.errors += 1
        error.id = error.id or self.name
        return wire.error_reply(header, error, codec)

    def run(self, method: Method, request: Any, header: dict[str, str]) -> Awaitable[Any]:
        """Run a method inside the middleware; gives its reply, or the iterator of replies."""
        if self._chain is None:
            if method.awaited and method.request is not None:  # the ordinary case
                coroutine: Awaitable[Any] = method.function(request)
                return coroutine
            return self.invoke(method, request)
        call = _Handling("server", self.name, method.name, request, header, method.streams)
        call.method = method
        return self._chain(call)

    def _end(self, call: Call) -> Awaitable[Any]:
        assert isinstance(call, _Handling)
        assert call.method is not None
        return self.invoke(call.method, call.message)

    def invoke(self, method: Method, request: Any) -> Awaitable[Any]:
        """Run a method itself; one that is no coroutine runs in a thread."""
        # The handler's own coroutine is what is awaited: every one around it costs.
        arguments = () if method.request is None else (request,)
        if method.awaited:
            coroutine: Awaitable[Any] = method.function(*arguments)
            return coroutine
        return self._start(method, arguments)

    async def _start(self, method: Method, arguments: tuple[Any, ...]) -> Any:
        if method.is_async:
            return method.function(*arguments)
        if method.streams_out:
            return self._iterate(method.function(*arguments))
        return await self.in_thread(method.function, *arguments)

    async def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run a function in the thread pool, with the metadata and deadline of the call."""
        return await self.threads.run(function, *arguments)

    async def _iterate(self, items: Iterator[Any]) -> AsyncIterator[Any]:
        end = object()
        while (item := await self.in_thread(next, items, end)) is not end:
            yield item

    async def deliver(self, topic: str, message: Message) -> None:
        """Run all subscribers of a topic for an event that came over the transport."""
        for subscriber in self.subscribers:
            if subscriber.topic == topic:
                await subscriber.deliver(message)


@dataclass(slots=True, repr=False)
class _Handling(Call):
    """A request on its way through the middleware, with the method it is for."""

    method: Method | None = None
