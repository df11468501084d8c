"""Tests of the registry etcd against real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shoal.registry import Registry
from shoal.registry.etcd import EtcdRegistry
from shoal.testing.conformance.registry import RegistryConformance
from tests.servers import Background, need
from tests.servers.etcd import EtcdServer


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdServer]:
    need(EtcdServer)
    with Background(EtcdServer()) as server:
        assert isinstance(server, EtcdServer)
        yield server


class TestEtcd(RegistryConformance):
    """What is not refreshed vanishes at once; a process that died, within whole seconds."""

    watch_delay = 0.5

    @pytest.fixture(autouse=True)
    def _server(self, server: EtcdServer) -> None:
        self.address = server.address

    def make(self) -> Registry:
        return EtcdRegistry(self.address)
