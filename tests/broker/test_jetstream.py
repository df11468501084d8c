"""Tests of the broker over NATS JetStream, with a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from shoal.broker import Broker
from shoal.broker.jetstream import JetStreamBroker, JetStreamSettings
from shoal.testing.conformance.broker import BrokerConformance
from tests.servers import Background, need
from tests.servers.nats import NatsServer


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    need(NatsServer)
    with Background(NatsServer()) as running:
        assert isinstance(running, NatsServer)
        yield running


class TestJetStream(BrokerConformance):
    bounded: ClassVar[bool] = False  # what a subscriber does not take yet is stored
    biggest: ClassVar[int] = 700 * 1024  # the server takes a mebibyte, and base64 adds a third

    @pytest.fixture(autouse=True)
    def _server(self, server: NatsServer) -> None:
        self.server = server

    def make(self, *, unread: int = 1024) -> Broker:
        return JetStreamBroker(self.server.url)


class TestEventsStreams(TestJetStream):
    """The same with events in the form of Go Micro's events streams."""

    def make(self, *, unread: int = 1024) -> Broker:
        return JetStreamBroker(self.server.url, streams=JetStreamSettings(events=True))
