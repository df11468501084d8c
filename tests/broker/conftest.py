"""What has sockets of its own is tested on uvloop as well as on plain asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

_BOTH = {
    "test_http",
    "test_http_directory",
    "test_http_receiver",
    "test_jetstream",
    "test_nats",
    "test_redis",
    "test_redis_streams",
}


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    plain = {"asyncio": asyncio.new_event_loop}
    return {**plain, "uvloop": uvloop.new_event_loop} if item.path.stem in _BOTH else plain
