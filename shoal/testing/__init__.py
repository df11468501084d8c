"""Package testing runs services inside a test: no ports, no servers, no waiting."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Unpack

from shoal.broker.memory import MemoryBroker
from shoal.client import Client
from shoal.options import Settings
from shoal.registry.memory import MemoryRegistry
from shoal.service import Service
from shoal.testing.clock import FakeClock
from shoal.transport.memory import MemoryTransport

__all__ = ["FakeClock", "Network", "serve"]


class Network:
    """A registry, a transport and a broker in memory, shared by the services of one test.

    Use it as an async context manager; services it made and that were started are stopped at its
    end, the last one first.
    """

    def __init__(self) -> None:
        self.settings: Settings = {
            "registry": MemoryRegistry(),
            "transport": MemoryTransport(),
            "broker": MemoryBroker(),
            "address": "127.0.0.1:0",
            "server_linger": 0.0,  # what is in memory is known at once
            "watchdog": 0.0,  # a test may stop in a debugger
        }
        self._stack = AsyncExitStack()
        self._caller = self.service("test")

    @property
    def client(self) -> Client:
        """A client that sees every service of the network."""
        return self._caller.client

    def service(self, name: str, **settings: Unpack[Settings]) -> Service:
        """Return a new service on this network; `settings` go over what they share."""
        merged: Settings = {**self.settings, **settings}
        return Service(name, **merged)

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
        return self

    async def __aexit__(self, *error: object) -> None:
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
