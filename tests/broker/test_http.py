"""Tests of the HTTP broker."""

from __future__ import annotations

from shoal.broker import Broker
from shoal.broker.http import HttpBroker
from shoal.registry.memory import MemoryRegistry
from shoal.testing.conformance.broker import BrokerConformance


class TestHttp(BrokerConformance):
    def setup_method(self) -> None:
        self.registry = MemoryRegistry()

    def make(self, *, unread: int = 1024) -> Broker:
        return HttpBroker(self.registry, unread=unread)
