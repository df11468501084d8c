"""Listening and accepting: every interface, no room for more, and nothing left behind."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import socket as tcp
from pathlib import Path

import pytest

from shoal.errors import Unavailable
from shoal.message import Message
from shoal.testing.conformance.transport import TransportConformance, has_ipv6
from shoal.transport import Socket, Transport
from shoal.transport.http import HttpTransport
from shoal.transport.tcp import TcpTransport
from tests.transport.wire import PATIENCE, echo, raw, response, serving, until

REQUEST = b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi"


class TestTcpTransport(TransportConformance):
    def make(self) -> Transport:
        return TcpTransport()


class TestTcpTransportOverUnixSockets(TransportConformance):
    ports = False

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        type(self).address = f"unix://{tmp_path}/listener.sock"

    def make(self) -> Transport:
        return TcpTransport()


async def test_no_file_descriptors_left_does_not_end_a_listener(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as address:
        async with raw(address) as (reader, writer):
            writer.write(REQUEST)
            assert (await response(reader))[2] == b"hi"
        waiting = [tcp.socket() for _ in range(5)]
        for socket in waiting:
            socket.setblocking(False)
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        try:
            try:
                while True:
                    taken.append(os.dup(0))
            except OSError:
                pass
            for socket in waiting:
                socket.connect_ex(address)  # the system takes it, nobody can accept it
            await until(lambda: "cannot accept a connection" in caplog.text)
        finally:
            for descriptor in taken:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        # Those that had to wait, and new ones.
        loop = asyncio.get_running_loop()
        for socket in waiting:
            await loop.sock_sendall(socket, REQUEST)
        for socket in waiting:
            async with asyncio.timeout(PATIENCE):
                assert (await loop.sock_recv(socket, 4096)).endswith(b"hi")
            socket.close()
        async with raw(address) as (reader, writer):
            writer.write(REQUEST)
            assert (await response(reader))[2] == b"hi"
    assert all(record.levelno <= logging.WARNING for record in caplog.records)


async def test_no_file_descriptors_left_for_dialling() -> None:
    async with serving() as (host, port):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        taken: list[int] = []
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        try:
            try:
                while True:
                    taken.append(os.dup(0))
            except OSError:
                pass
            with pytest.raises(Unavailable, match=r"cannot connect to 127\.0\.0\.1"):
                await HttpTransport().dial(f"{host}:{port}")
        finally:
            for descriptor in taken:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_every_interface_has_one_port() -> None:
    async with asyncio.timeout(PATIENCE):
        listener = await HttpTransport().listen(":0", echo)
        assert listener.address.startswith("0.0.0.0:")
        port = int(listener.address.rpartition(":")[2])
        for host in ("127.0.0.1", "::1") if has_ipv6() else ("127.0.0.1",):
            async with raw((host, port)) as (reader, writer):
                writer.write(REQUEST)
                assert (await response(reader))[2] == b"hi"
        await listener.close()


async def test_a_name_has_one_port_at_all_its_addresses() -> None:
    async with asyncio.timeout(PATIENCE):
        listener = await HttpTransport().listen("localhost:0", echo)
        socket = await HttpTransport().dial(listener.address)
        await socket.send(Message({}, b"hi"))
        assert (await socket.recv()).body == b"hi"
        await socket.close()
        await listener.close()


@pytest.mark.parametrize(
    "address", ["no-such-host.invalid:0", "x" * 70 + ".invalid:80", "192.0.2.1:0", "a..b:80"]
)
async def test_a_host_that_is_not_this_one(address: str) -> None:
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Exception, match=r"cannot listen at|is no address") as caught:
            await HttpTransport().listen(address, echo)
    assert address in str(caught.value)


async def test_a_name_nobody_knows() -> None:
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(Unavailable, match=r"cannot connect to no-such-host\.invalid:80"):
            await HttpTransport().dial("no-such-host.invalid:80")


async def test_a_host_that_does_not_answer_costs_the_dial_timeout() -> None:
    with tcp.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        fillers = [tcp.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        with pytest.raises(Unavailable, match=r"within 0\.2 s"):
            await HttpTransport(dial_timeout=0.2).dial("{}:{}".format(*address))
        for filler in fillers:
            filler.close()


async def test_a_port_is_free_the_moment_its_listener_is_closed() -> None:
    async with asyncio.timeout(PATIENCE):
        listener = await HttpTransport().listen("127.0.0.1:0", echo)
        for _ in range(10):
            socket = await HttpTransport().dial(listener.address)
            await socket.send(Message({}, b"hi"))
            await socket.recv()
            await listener.close()
            listener = await HttpTransport().listen(listener.address, echo)
            await socket.close()
        await listener.close()


async def test_dead_peers_are_asked_for() -> None:
    seen: list[int] = []

    async def accept(socket: Socket) -> None:
        connection = socket._transport.get_extra_info("socket")  # type: ignore[attr-defined]  # ours
        seen.append(connection.getsockopt(tcp.SOL_SOCKET, tcp.SO_KEEPALIVE))
        await echo(socket)

    async with serving(accept) as (host, port):
        client = await HttpTransport().dial(f"{host}:{port}")
        connection = client._transport.get_extra_info("socket")  # type: ignore[attr-defined]  # ours
        assert connection.getsockopt(tcp.SOL_SOCKET, tcp.SO_KEEPALIVE) == 1
        await client.send(Message())
        await client.recv()
        await client.close()
    assert seen == [1]


async def test_what_arrived_but_was_not_begun_is_closed_too() -> None:
    listener = await HttpTransport().listen("127.0.0.1:0", echo)
    host, _, port = listener.address.rpartition(":")
    sockets = [tcp.create_connection((host, int(port))) for _ in range(20)]
    # Nothing has run in between: all of them wait to be accepted.
    await asyncio.sleep(0)
    await listener.close()
    assert repr(listener).endswith("with 0 sockets closed>")
    for socket in sockets:
        socket.settimeout(PATIENCE)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.to_thread(socket.recv, 1) == b""
        socket.close()


async def test_a_loop_keeps_its_buffer_while_another_uses_the_transport() -> None:
    transport = HttpTransport()

    async def buffer() -> memoryview:
        return transport._buffer

    mine = transport._buffer
    other = await asyncio.to_thread(lambda: asyncio.run(buffer()))
    assert other is not mine
    assert transport._buffer is mine


async def test_one_transport_in_two_event_loops() -> None:
    """What one loop reads must not end up in what the other parses."""
    transport = HttpTransport()

    async def work(letter: bytes) -> None:
        listener = await transport.listen("127.0.0.1:0", echo)
        socket = await transport.dial(listener.address)
        async with asyncio.timeout(4 * PATIENCE):
            for size in range(300):
                body = letter * (size * 500)
                await socket.send(Message({}, body))
                assert (await socket.recv()).body == body
        await socket.close()
        await listener.close()

    def elsewhere() -> None:
        asyncio.run(work(b"b"))

    other = asyncio.create_task(asyncio.to_thread(elsewhere))
    await work(b"a")
    await other


async def test_who_came_just_before_the_end_is_answered() -> None:
    listener = await HttpTransport().listen("127.0.0.1:0", echo)
    host, _, port = listener.address.rpartition(":")
    with tcp.create_connection((host, int(port))) as peer:  # the loop has not seen it yet
        peer.sendall(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi")
        await listener.close()
        peer.settimeout(PATIENCE)
        assert peer.recv(1000).endswith(b"hi")
        with pytest.raises(OSError, match="refused"):
            tcp.create_connection((host, int(port)))
