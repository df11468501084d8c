"""Tests of the broker over NATS, with a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from shoal.broker import Broker
from shoal.broker.nats import NatsBroker
from shoal.testing.conformance.broker import BrokerConformance
from tests.servers import Background, need
from tests.servers.nats import NatsServer


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    need(NatsServer)
    with Background(NatsServer()) as running:
        assert isinstance(running, NatsServer)
        yield running


class TestNats(BrokerConformance):
    bounded: ClassVar[bool] = False  # NATS sends what comes, and the broker drops what is too much
    biggest: ClassVar[int] = 700 * 1024  # the server takes a mebibyte, and base64 adds a third

    @pytest.fixture(autouse=True)
    def _server(self, server: NatsServer) -> None:
        self.server = server

    def make(self, *, unread: int = 1024) -> Broker:
        return NatsBroker(self.server.url)
