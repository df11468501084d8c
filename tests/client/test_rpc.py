"""The client, over the memory transport, over HTTP and over Shoal's own protocol."""

from typing import Any

from shoal.client import Client
from shoal.testing.conformance.client import ClientConformance, Fleet
from shoal.transport.http import HttpTransport
from shoal.transport.tcp import TcpTransport


class TestRpcClientInMemory(ClientConformance):
    def make(self, fleet: Fleet, **settings: Any) -> Client:
        return fleet.client(**settings)


class TestRpcClientOverHttp(TestRpcClientInMemory):
    def make_fleet(self) -> Fleet:
        return Fleet(HttpTransport(native=False))


class TestRpcClientOverNative(TestRpcClientInMemory):
    def make_fleet(self) -> Fleet:
        return Fleet(HttpTransport())


class TestRpcClientOverTcp(TestRpcClientInMemory):
    def make_fleet(self) -> Fleet:
        return Fleet(TcpTransport())
