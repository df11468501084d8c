"""The transport over RabbitMQ: the suite, with a real server, and what is its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, ClassVar

import pytest

from shoal.testing.conformance.transport import TransportConformance
from shoal.transport import Transport
from shoal.transport.rabbitmq import RabbitTransport
from tests.servers import Background, need
from tests.servers.rabbitmq import RabbitServer


@pytest.fixture(scope="module")
def background() -> Iterator[Background]:
    need(RabbitServer)
    background = Background(RabbitServer())
    with background:
        yield background


@pytest.fixture
def server(background: Background) -> RabbitServer:
    assert isinstance(background.server, RabbitServer)
    return background.server


class TestRabbitTransport(TransportConformance):
    address: ClassVar[str] = ":0"
    ports: ClassVar[bool] = False
    backpressure: ClassVar[bool] = False  # a queue takes what comes
    nonsense: ClassVar[Sequence[str]] = (
        "", " ", "a.*", "#", "a\0b", "amq.a", "\ud800", "x" * 256,
    )  # fmt: skip

    @pytest.fixture(autouse=True)
    async def _server(self, server: RabbitServer) -> AsyncIterator[None]:
        self.server = server
        before = asyncio.all_tasks()
        yield
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        assert not left, f"closing all sockets left {left}"

    def foreign(self, task: asyncio.Task[Any]) -> bool:
        """The connection is there until the last socket is closed, of either side."""
        return True

    def make(self) -> Transport:
        return RabbitTransport(self.server.url)
