"""Unix sockets: whose files they are, who may connect, and what is left of them."""

from __future__ import annotations

import asyncio
import os
import socket as tcp
import stat
from pathlib import Path

import pytest

import shoal
from shoal.errors import BadRequest, Unavailable
from shoal.message import Message
from shoal.registry.memory import MemoryRegistry
from shoal.transport._address import unix_path
from shoal.transport.http import HttpTransport
from shoal.transport.tcp import TcpTransport
from tests.transport.wire import PATIENCE, echo

TRANSPORTS = [HttpTransport, TcpTransport]
every_transport = pytest.mark.parametrize("kind", TRANSPORTS)


@every_transport
@pytest.mark.parametrize(
    ("query", "mode"), [("", 0o600), ("?mode=660", 0o660), ("?mode=0777", 0o777)]
)
async def test_the_file_is_there_while_it_is_listened_at(
    kind: type[TcpTransport], query: str, mode: int, tmp_path: Path
) -> None:
    path = tmp_path / "greeter.sock"
    listener = await kind().listen(f"unix://{path}{query}", echo)
    assert listener.address == f"unix://{path}"
    assert stat.S_IMODE(path.stat().st_mode) == mode
    await listener.close()
    assert not path.exists()
    with pytest.raises(Unavailable, match="greeter"):
        await kind().dial(f"unix://{path}")


@every_transport
async def test_a_file_nobody_listens_at_is_replaced(
    kind: type[TcpTransport], tmp_path: Path
) -> None:
    path = tmp_path / "stale.sock"
    dead = tcp.socket(tcp.AF_UNIX)
    dead.bind(str(path))
    dead.close()
    listener = await kind().listen(f"unix://{path}", echo)
    socket = await kind().dial(listener.address)
    await socket.send(Message({}, b"hello"))
    async with asyncio.timeout(PATIENCE):
        assert (await socket.recv()).body == b"hello"
    await socket.close()
    await listener.close()


async def test_another_file_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "letter"
    path.write_text("dear reader")
    with pytest.raises(Unavailable, match="taken"):
        await TcpTransport().listen(f"unix://{path}", echo)
    assert path.read_text() == "dear reader"


async def test_the_file_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "greeter.sock"
    first = await TcpTransport().listen(f"unix://{path}", echo)
    os.unlink(path)
    second = await TcpTransport().listen(f"unix://{path}", echo)
    await first.close()
    await (await TcpTransport().dial(second.address)).close()
    await second.close()
    assert not path.exists()


async def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="no-such"):
        await TcpTransport().listen(f"unix://{tmp_path}/no-such/a.sock", echo)


async def test_a_path_too_long_is_an_error_that_names_it(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/{'x' * 200}"
    for doing in (TcpTransport().listen(address, echo), TcpTransport().dial(address)):
        with pytest.raises((Unavailable, BadRequest), match="xxx"):
            await doing


@pytest.mark.parametrize(
    "address", ["unix:", "unix://", "unix://relative", "unix:///a?mode=9", "unix:///a?b=c"]
)
async def test_no_path_is_a_bad_request(address: str) -> None:
    assert unix_path(address) is None
    with pytest.raises(BadRequest):
        await TcpTransport().dial(address)


@pytest.mark.parametrize("transport", ["http", "tcp"])
async def test_a_service_at_a_unix_socket_is_found_and_called(
    transport: str, tmp_path: Path
) -> None:
    class Greeter:
        async def hello(self, request: str) -> str:
            return f"Hello {request}"

    registry = MemoryRegistry()
    service = shoal.Service(
        "greeter", registry=registry, transport=transport, address=f"unix://{tmp_path}/a.sock"
    )
    service.handle(Greeter())
    async with asyncio.timeout(PATIENCE), service:
        (record,) = await registry.get("greeter")
        (node,) = record.nodes
        assert node.address == f"unix://{tmp_path}/a.sock"
        assert node.metadata["shoal-native"] == "1"
        async with shoal.connect(registry=registry, transport=transport) as client:
            assert await shoal.stub(Greeter, "greeter", client).hello("John") == "Hello John"
