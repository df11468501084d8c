"""The server, over the memory transport and over HTTP."""

from typing import Any

from shoal.server import Server
from shoal.testing.conformance.server import Fleet, ServerConformance
from shoal.transport.http import HttpTransport


class TestRpcServerInMemory(ServerConformance):
    def make(self, fleet: Fleet, name: str, **settings: Any) -> Server:
        return fleet.server(name, **settings)


class TestRpcServerOverHttp(TestRpcServerInMemory):
    def make_fleet(self) -> Fleet:
        return Fleet(HttpTransport())
