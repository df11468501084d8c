"""The broker over RabbitMQ: the suite, with a real server, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from shoal.broker import Broker
from shoal.broker.rabbitmq import RabbitBroker
from shoal.testing.conformance.broker import BrokerConformance
from tests.servers import Background, need
from tests.servers.rabbitmq import RabbitServer


@pytest.fixture(scope="module")
def server() -> Iterator[RabbitServer]:
    need(RabbitServer)
    with Background(RabbitServer()) as running:
        assert isinstance(running, RabbitServer)
        yield running


class TestRabbit(BrokerConformance):
    bounded: ClassVar[bool] = False  # what waits, waits in the server

    @pytest.fixture(autouse=True)
    def _server(self, server: RabbitServer) -> None:
        self.server = server

    def make(self, *, unread: int = 1024) -> Broker:
        return RabbitBroker(self.server.url)
