"""Settings of the property tests, which hold on slow machines too, and the servers tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

from tests.servers import Background, need
from tests.servers.etcd import EtcdServer

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(scope="module")
def etcd() -> Iterator[EtcdServer]:
    """One etcd for the tests of a module, which leave it running."""
    need(EtcdServer)
    server = EtcdServer()
    with Background(server):
        yield server
