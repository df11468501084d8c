"""The server, over the memory transport, over HTTP and over Shoal's own protocol."""

from typing import Any

from shoal.server import Server
from shoal.testing.conformance.server import Fleet, ServerConformance
from shoal.transport.http import HttpTransport
from shoal.transport.tcp import TcpTransport


class TestRpcServerInMemory(ServerConformance):
    def make(self, fleet: Fleet, name: str, **settings: Any) -> Server:
        return fleet.server(name, **settings)


class TestRpcServerOverHttp(TestRpcServerInMemory):
    def make_fleet(self) -> Fleet:
        return Fleet(HttpTransport(native=False))


class TestRpcServerOverNative(TestRpcServerInMemory):
    def make_fleet(self) -> Fleet:
        return Fleet(HttpTransport())


class TestRpcServerOverTcp(TestRpcServerInMemory):
    def make_fleet(self) -> Fleet:
        return Fleet(TcpTransport())
