"""Tests of the registry that is Consul's agents, against a real one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import pytest

from shoal.registry import Registry
from shoal.registry.consul import ConsulRegistry
from shoal.testing.conformance.registry import RegistryConformance
from tests.servers import Background, need
from tests.servers.consul import ConsulServer


@pytest.fixture(scope="module")
def consul() -> Iterator[ConsulServer]:
    need(ConsulServer)
    server = ConsulServer()
    with Background(server):
        yield server


class TestConsul(RegistryConformance):
    """One agent for all tests."""

    service_metadata: ClassVar[bool] = False
    watch_delay: ClassVar[float] = 1.0

    @pytest.fixture(autouse=True)
    def agent(self, consul: ConsulServer) -> None:
        self.address = consul.address

    def make(self) -> Registry:
        return ConsulRegistry(self.address)
