"""Tests of the memory broker."""

from __future__ import annotations

from shoal.broker import Broker
from shoal.broker.memory import MemoryBroker
from shoal.testing.conformance.broker import BrokerConformance


class TestMemory(BrokerConformance):
    shared = True  # services that reach each other are given the same object

    def make(self, *, unread: int = 1024) -> Broker:
        return MemoryBroker(unread=unread)
