"""The broker on Redis streams, against a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shoal.broker import Broker
from shoal.broker.redis_streams import RedisStreamsBroker
from shoal.testing.conformance.broker import BrokerConformance
from tests.servers import Background, need
from tests.servers.redis import RedisServer


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    need(RedisServer)
    running = RedisServer()
    with Background(running):
        yield running


class TestRedisStreams(BrokerConformance):
    bounded = False

    @pytest.fixture(autouse=True)
    def _server(self, server: RedisServer) -> None:
        self.address = server.address

    def make(self, *, unread: int = 1024) -> Broker:
        return RedisStreamsBroker(self.address)
