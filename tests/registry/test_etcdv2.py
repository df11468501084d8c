"""Tests of the registry etcdv2 against real servers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shoal.registry import Registry
from shoal.registry.etcdv2 import EtcdV2Registry
from shoal.testing.conformance.registry import RegistryConformance
from tests.servers import Background, need
from tests.servers.etcd import EtcdServer


@pytest.fixture(scope="module")
def server() -> Iterator[EtcdServer]:
    need(EtcdServer)
    with Background(EtcdServer()) as server:
        assert isinstance(server, EtcdServer)
        yield server


class TestEtcdV2(RegistryConformance):
    """What is not refreshed vanishes at once; a process that died, within whole seconds."""

    watch_delay = None

    @pytest.fixture(autouse=True)
    def _server(self, server: EtcdServer) -> None:
        self.address = server.address

    def make(self) -> Registry:
        return EtcdV2Registry(self.address)
