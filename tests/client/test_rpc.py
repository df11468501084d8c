"""The client, over the memory transport and over HTTP."""

from typing import Any

from shoal.client import Client
from shoal.testing.conformance.client import ClientConformance, Fleet
from shoal.transport.http import HttpTransport


class TestRpcClientInMemory(ClientConformance):
    def make(self, fleet: Fleet, **settings: Any) -> Client:
        return fleet.client(**settings)


class TestRpcClientOverHttp(TestRpcClientInMemory):
    def make_fleet(self) -> Fleet:
        return Fleet(HttpTransport())
