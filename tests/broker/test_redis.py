"""The broker on Redis's publish and subscribe, against a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shoal.broker import Broker
from shoal.broker.redis import RedisBroker
from shoal.testing.conformance.broker import BrokerConformance
from tests.servers import Background, need
from tests.servers.redis import RedisServer


@pytest.fixture(scope="module")
def server() -> Iterator[Background]:
    need(RedisServer)
    background = Background(RedisServer())
    with background:
        yield background


class TestRedis(BrokerConformance):
    queues = False
    bounded = False

    @pytest.fixture(autouse=True)
    def _server(self, server: Background) -> None:
        self.address = server.server.address

    def make(self, *, unread: int = 1024) -> Broker:
        return RedisBroker(self.address)
