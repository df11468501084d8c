"""The transport over NATS: the suite, with a real server, and what is its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, ClassVar

import pytest

from shoal.testing.conformance.transport import TransportConformance
from shoal.transport import Transport
from shoal.transport.nats import NatsTransport
from tests.servers import Background, need
from tests.servers.nats import NatsServer


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    need(NatsServer)
    with Background(NatsServer()) as running:
        assert isinstance(running, NatsServer)
        yield running


class TestNatsTransport(TransportConformance):
    address: ClassVar[str] = ":0"
    ports: ClassVar[bool] = False
    notices_absence: ClassVar[bool] = False  # only the first message tells
    backpressure: ClassVar[bool] = False  # a subject takes what comes
    largest: ClassVar[int] = 700 * 1024  # the server takes a mebibyte, and base64 adds a third
    nonsense: ClassVar[Sequence[str]] = (
        "", " ", "a b", "a..b", ".a", "a.", "a.*", ">", "a\0b", "a\r\nb", "$SYS.a", "\ud800",
        "x" * 2000,
    )  # fmt: skip

    @pytest.fixture(autouse=True)
    async def _server(self, server: NatsServer) -> AsyncIterator[None]:
        self.server = server
        yield
        left = [task for task in asyncio.all_tasks() if self.foreign(task)]
        assert not left, f"closing all sockets left {left}"

    def foreign(self, task: asyncio.Task[Any]) -> bool:
        """The connection is there until the last socket is closed, of either side."""
        kind = getattr(task.get_coro(), "__qualname__", "").partition(".")[0]
        return kind in {"Link", "Outbox", "Client", "Subscription"}

    def make(self) -> Transport:
        return NatsTransport(self.server.url)
