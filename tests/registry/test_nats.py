"""Tests of the registry over NATS, with a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from shoal.registry import Registry
from shoal.registry.nats import NatsRegistry
from shoal.testing.conformance.registry import RegistryConformance
from tests.servers import Background, need
from tests.servers.nats import NatsServer


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    need(NatsServer)
    with Background(NatsServer()) as running:
        assert isinstance(running, NatsServer)
        yield running


class TestNats(RegistryConformance):
    watch_delay: ClassVar[float] = 0.2  # until the connection is made

    @pytest.fixture(autouse=True)
    def _server(self, server: NatsServer) -> None:
        self.address = server.url

    def make(self) -> Registry:
        return NatsRegistry(self.address)
