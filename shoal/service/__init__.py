"""Package service is where the other seven interfaces meet: one object a program is made of."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self, Unpack

from shoal.broker import Broker
from shoal.client import Client
from shoal.health import Readiness, Reason, gauges
from shoal.options import Options, Settings, parse_or_exit, read_environment
from shoal.plugins import PluginError
from shoal.registry import Registry
from shoal.selector import Selector
from shoal.server import Server
from shoal.service._health import Health
from shoal.service._parts import Parts, build
from shoal.service._run import run_until_signal
from shoal.service._watchdog import Watchdog
from shoal.service._workers import Worker
from shoal.transport import Transport

logger = logging.getLogger("shoal.service")


class Service:
    """A named service: handlers and subscribers it serves, and a client to call others.

    Settings are the fields of Options. Plugins are given by name (`registry="etcd"`), with an
    address (`broker="nats://10.0.0.2:4222"`) or as an object; an object is its giver's to close.
    """

    def __init__(self, name: str = "", **settings: Unpack[Settings]) -> None:
        self.options = Options(name=name, **settings)
        self._made: Parts | None = None
        self._running = False
        self._health: Health | None = None
        self._watchdog: Watchdog | None = None  # of somebody else in the same loop

    def __repr__(self) -> str:
        state = "running" if self._running else "stopped"
        return f"Service({self.options.name!r}, {state})"

    def init(self, argv: Sequence[str] | None = None) -> None:
        """Read the environment (`MICRO_*`) and then the command line over what the code says.

        It comes before anything else. Exits with code 2 and a sentence for a value nobody can
        use, and with 0 after `--help` and `--version`.
        """
        if self._made is not None:
            raise RuntimeError("init() comes before handle(), subscribe() and client")
        self.options = parse_or_exit(self.options, argv)

    def handle(self, handler: object, *, contract: Callable[..., Any] | None = None) -> None:
        """Serve every public method of an object whose hints make it an endpoint.

        With `contract` only the methods of that class are served, under its name. Raises
        TypeError naming the method whose hints cannot be used.
        """
        self.server.handle(handler, contract=contract)

    def subscribe(self, topic: str, handler: Callable[..., Any], *, queue: str = "") -> None:
        """Run a function for every event of a topic, decoded into the type it hints.

        With a queue the events are shared among all subscribers that name it.
        """
        self.server.subscribe(topic, handler, queue=queue)

    @property
    def client(self) -> Client:
        """The client to call other services and publish events with."""
        return self._parts.client

    @property
    def server(self) -> Server:
        """The server that runs handlers and subscribers."""
        return self._parts.server

    @property
    def registry(self) -> Registry:
        """The registry this service is registered in and finds others by."""
        return self._parts.registry

    @property
    def selector(self) -> Selector:
        """The selector the client chooses nodes with."""
        return self._parts.selector

    @property
    def transport(self) -> Transport:
        """The transport that calls and requests travel on."""
        return self._parts.transport

    @property
    def broker(self) -> Broker:
        """The broker events travel through."""
        return self._parts.broker

    @property
    def ready(self) -> Readiness:
        """Whether it should get work, with the reasons if not; any thread may ask."""
        if self._health is None:
            return Readiness((Reason("service", f"{self.options.name} does not run"),))
        ask = getattr(self._parts.server, "readiness", Readiness)
        return Readiness((*ask().reasons, *self._health.reasons()))

    @property
    def health_address(self) -> str:
        """Where probes are answered, empty if nowhere."""
        port = self._health.port if self._health is not None else None
        return port.address if port is not None else ""

    @property
    def _parts(self) -> Parts:
        if self._made is None:
            self._made = build(self._own_options)
        return self._made

    @property
    def _own_options(self) -> Options:
        worker = Worker.here()
        return worker.options(self.options) if worker else self.options

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM, then stop in order; a second signal stops at once.

        With `workers` this process starts that many others instead, which run the same program
        and serve, each a node of its own, and starts those again that end. Sets up logging to
        stderr if the program has not. Exits with code 1 and a sentence when the service cannot
        start.
        """
        run_until_signal(self, self.options, self._identity)

    def _identity(self) -> dict[str, str]:
        record = getattr(self._made.server, "record", None) if self._made is not None else None
        node = {"node": record.nodes[0].id} if record is not None else {}
        return {"service": self.options.name, **node}

    async def __aenter__(self) -> Self:
        """Start: listen, connect the broker, register. Raises what the parts raise."""
        if self._running:
            raise RuntimeError(f"{self.options.name} is running already")
        parts = self._parts
        pages = [one.page for one in parts.telemetry if one.page is not None]
        health = Health(
            self._own_options, lambda: self.ready, pages[0] if pages else None, self._watchdog
        )
        self._health = health
        for one in parts.telemetry:
            one.read(lambda: gauges(parts.server, health))
        try:
            health.start()
            await parts.server.start()
        except BaseException:
            await self._end()
            raise
        self._running = True
        self._tell(parts)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Deregister, finish what runs, stop and close what this service made."""
        self._running = False
        try:
            await self._parts.server.stop()
        finally:
            await self._end()

    async def _end(self) -> None:
        try:
            await self._parts.close()
        finally:
            if self._health is not None:
                self._health.stop()
                self._health = None

    def _tell(self, parts: Parts) -> None:
        names = {part: self.options.plugin(part)[0] for part in ("transport", "broker", "registry")}
        logger.info("Transport [%s] listening on %s", names["transport"], parts.server.address)
        if parts.broker.address:
            logger.info("Broker [%s] connected to %s", names["broker"], parts.broker.address)
        record = getattr(parts.server, "record", None)
        if record is not None:
            for node in record.nodes:
                logger.info("Registry [%s] registered node %s", names["registry"], node.id)
                logger.info(
                    "Others reach it at %s (%s)", node.address, getattr(parts.server, "rule", "")
                )


class Group:
    """Several services in one process: started in order, stopped in the opposite one."""

    def __init__(self, *services: Service) -> None:
        self.services = services
        self._stack = AsyncExitStack()

    def __repr__(self) -> str:
        return f"Group({', '.join(repr(service) for service in self.services)})"

    def run(self) -> None:
        """Serve all of them until SIGINT or SIGTERM, as `Service.run` does."""
        options = [service.options for service in self.services] or [Options()]
        workers = max(one.workers for one in options)
        run_until_signal(self, replace(options[0], workers=workers), self._identity)

    @property
    def health_address(self) -> str:
        """Where probes of the first one are answered, empty if nowhere."""
        return self.services[0].health_address if self.services else ""

    def _identity(self) -> dict[str, str]:
        if len(self.services) == 1:
            return self.services[0]._identity()
        return {"service": ",".join(service.options.name for service in self.services)}

    async def __aenter__(self) -> Self:
        """Start all; if one cannot, those before it are stopped again."""
        async with AsyncExitStack() as stack:
            watchdog: Watchdog | None = None
            for service in self.services:
                service._watchdog = watchdog  # the first one's watches the loop for all
                await stack.enter_async_context(service)
                if service._health is not None:
                    watchdog = service._health.watchdog
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop all."""
        await self._stack.aclose()


@asynccontextmanager
async def connect(**settings: Unpack[Settings]) -> AsyncIterator[Client]:
    """Give a client without a server for the block, for scripts.

    The environment (`MICRO_*`) goes over the settings, as it does for a service.
    """
    parts = build(read_environment(Options(**settings)))
    for one in parts.telemetry:
        one.read(lambda: gauges(parts.client, parts.selector))
    try:
        yield parts.client
    finally:
        await parts.close()


__all__ = ["Group", "PluginError", "Service", "connect"]
