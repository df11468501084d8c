"""Package testing runs services inside a test: no ports, no servers, no waiting."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Unpack

from shoal.broker.memory import MemoryBroker
from shoal.client import Client
from shoal.options import Settings
from shoal.registry.memory import MemoryRegistry
from shoal.service import Service
from shoal.testing.clock import FakeClock
from shoal.testing.faults import Faults
from shoal.transport.memory import MemoryTransport

__all__ = ["FakeClock", "Faults", "Network", "serve"]


class Network:
    """A registry, a transport and a broker in memory, shared by the services of one test.

    Use it as an async context manager; services it made and that were started are stopped at its
    end, the last one first. With `faults` each service is a place of its name (the second of a
    name is `name-2`), the client of the network is the place `test`, and the seed is also that of
    Python's `random`, so that a run repeats another.
    """

    def __init__(self, faults: Faults | None = None) -> None:
        self.settings: Settings = {
            "registry": MemoryRegistry(),
            "transport": MemoryTransport(),
            "broker": MemoryBroker(),
            "address": "127.0.0.1:0",
            "server_linger": 0.0,  # what is in memory is known at once
            "watchdog": 0.0,  # a test may stop in a debugger
        }
        self._faults = faults
        self._places: dict[str, int] = {}
        self._stack = AsyncExitStack()
        self._caller = self.service("test")

    @property
    def client(self) -> Client:
        """A client that sees every service of the network."""
        return self._caller.client

    def service(self, name: str, **settings: Unpack[Settings]) -> Service:
        """Return a new service on this network; `settings` go over what they share."""
        merged: Settings = {**self.settings, **settings}
        if self._faults is not None:
            merged = self._with_faults(self._faults, name, merged)
        return Service(name, **merged)

    def _with_faults(self, faults: Faults, name: str, settings: Settings) -> Settings:
        number = self._places[name] = self._places.get(name, 0) + 1
        place = name if number == 1 else f"{name}-{number}"
        transport = settings.get("transport", "")
        registry = settings.get("registry", "")
        broker = settings.get("broker", "")
        if isinstance(transport, str) or isinstance(registry, str) or isinstance(broker, str):
            raise TypeError("on a network with faults plugins are given as objects")
        return {
            "id": str(number),  # one by chance would put nodes in another order in every run
            **settings,
            "transport": faults.transport(transport, place),
            "registry": faults.registry(registry, place),
            "broker": faults.broker(broker, place),
        }

    async def start(self, *services: Service) -> None:
        """Start services that run until the network ends."""
        for service in services:
            await self._stack.enter_async_context(service)

    async def serve(self, handler: object, name: str = "", **settings: Unpack[Settings]) -> Service:
        """Start a service with one handler, named like its class in lower case by default."""
        service = self.service(name or type(handler).__name__.lower(), **settings)
        service.handle(handler)
        await self.start(service)
        return service

    async def __aenter__(self) -> Network:
        if self._faults is not None:
            # Jitter and the choice of a node come from there.
            self._stack.callback(random.setstate, random.getstate())
            random.seed(self._faults.seed)
        return self

    async def __aexit__(self, *error: object) -> None:
        if self._faults is not None:
            self._faults.calm()  # the test is over, and services say good-bye
        await self._stack.aclose()
        await self.client.close()
        await self._caller.selector.close()
        await self._caller.broker.disconnect()
        await self._caller.registry.close()


@asynccontextmanager
async def serve(*handlers: object, **settings: Unpack[Settings]) -> AsyncIterator[Client]:
    """Serve handlers for the block, and give a client that calls them.

    Each handler is a service of its own, named like its class in lower case: `Greeter` is
    `greeter`. Types, middleware, deadlines and errors are those of a real call.
    """
    async with Network() as network:
        for handler in handlers:
            await network.serve(handler, **settings)
        yield network.client
