"""The http transport over TLS: the suite, who is let in, and handshakes that fail."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from shoal.errors import BadRequest, ConnectionClosed, Error, Unavailable
from shoal.message import Message
from shoal.testing.conformance.transport import TransportConformance
from shoal.tls import LiveContext, Tls, TlsError
from shoal.transport import Transport
from shoal.transport.http import HttpTransport
from shoal.transport.tcp import TcpTransport
from tests.test_tls import Authority
from tests.transport.wire import PATIENCE, raw, response, serving, until


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"), "authority")


@pytest.fixture(scope="module")
def tls(authority: Authority) -> Tls:
    return identity(authority, "node")


def identity(authority: Authority, name: str) -> Tls:
    """Return settings that show a certificate and trust the authority it is from."""
    certificate, key = authority.issue(name)
    return Tls(cert_file=certificate, key_file=key, ca_file=authority.file)


class TestHttpTransportWithTls(TransportConformance):
    @pytest.fixture(autouse=True)
    def _certificates(self, tls: Tls) -> None:
        # The certificate names 127.0.0.1 alone; the suite dials other names too.
        self._tls = Tls(
            cert_file=tls.cert_file,
            key_file=tls.key_file,
            ca_file=tls.ca_file,
            check_hostname=False,
        )

    def make(self) -> Transport:
        return HttpTransport(tls=self._tls, native=False)


class TestHttpTransportNativeWithTls(TestHttpTransportWithTls):
    def make(self) -> Transport:
        return HttpTransport(tls=self._tls)


class TestTcpTransportWithTls(TestHttpTransportWithTls):
    def make(self) -> Transport:
        return TcpTransport(tls=self._tls)


class TestTcpTransportWithTlsOverUnixSockets(TestTcpTransportWithTls):
    ports = False

    @pytest.fixture(autouse=True)
    def place(self, tmp_path: Path) -> None:
        type(self).address = f"unix://{tmp_path}/listener.sock"


async def exchange(client: Tls | None, address: tuple[str, int]) -> bytes:
    """Return what comes back to one message."""
    transport = HttpTransport(tls=client)
    async with asyncio.timeout(PATIENCE):
        socket = await transport.dial("{}:{}".format(*address))
        try:
            await socket.send(Message({}, b"hello"))
            return (await socket.recv()).body
        finally:
            await socket.close()


async def test_both_sides_verified(tls: Tls, authority: Authority) -> None:
    server = Tls(
        cert_file=tls.cert_file, key_file=tls.key_file, ca_file=authority.file, client_auth=True
    )
    async with serving(tls=server) as address:
        assert await exchange(identity(authority, "client"), address) == b"hello"
        for stranger in (Tls(ca_file=authority.file),):
            with pytest.raises((ConnectionClosed, Unavailable)):
                await exchange(stranger, address)
        assert await exchange(identity(authority, "another"), address) == b"hello"


async def test_a_stranger_s_certificate_is_refused(tls: Tls, tmp_path: Path) -> None:
    stranger = identity(Authority(tmp_path, "stranger"), "client")
    server = Tls(
        cert_file=tls.cert_file, key_file=tls.key_file, ca_file=tls.ca_file, client_auth=True
    )
    async with serving(tls=server) as address:
        with pytest.raises(Unavailable, match=r"no TLS connection to 127\.0\.0\.1:.*verify failed"):
            await exchange(stranger, address)  # which does not know the server's authority either
        for client in (
            Tls(cert_file=stranger.cert_file, key_file=stranger.key_file, ca_file=tls.ca_file),
            Tls(cert_file=stranger.cert_file, key_file=stranger.key_file, verify=False),
        ):
            with pytest.raises((ConnectionClosed, Unavailable)):
                await exchange(client, address)


async def test_unverified_only_when_told_so(tls: Tls) -> None:
    async with serving(tls=tls) as address:
        with pytest.raises(Unavailable):
            await exchange(Tls(), address)
        assert await exchange(Tls(verify=False), address) == b"hello"


async def test_a_server_needs_a_certificate() -> None:
    with pytest.raises(TlsError):
        async with serving(tls=Tls(verify=False)):
            pass


# One side with TLS and the other without


async def test_plain_client_and_tls_server(tls: Tls, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(tls=tls) as address:
        with pytest.raises(Error) as caught:
            await exchange(None, address)
        # A TLS server may say why before it closes; then the client knows what that was.
        assert isinstance(caught.value, BadRequest | ConnectionClosed)
        assert await exchange(tls, address) == b"hello"
    # One line from each side at most.
    assert len(caplog.records) <= 2, caplog.text


async def test_tls_client_and_plain_server(tls: Tls) -> None:
    async with serving() as address:
        with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
            await exchange(tls, address)
        assert await exchange(None, address) == b"hello"


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 600, b"\x16\x03\x01\x00\x05hello" * 50, b""],
    ids=["plain", "zeros", "half TLS", "nothing"],
)
async def test_no_handshake(tls: Tls, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with serving(tls=tls, dial_timeout=0.3) as address:
        async with raw(address) as (reader, writer):
            writer.write(data)
            async with asyncio.timeout(PATIENCE):
                with suppress(ConnectionResetError):
                    await reader.read()  # an alert at most, and the end
        await until(lambda: caplog.records)
        assert await exchange(tls, address) == b"hello"
    assert len(caplog.records) == 1, caplog.text
    assert "127.0.0.1" in caplog.text


async def test_many_handshakes_that_never_end_hold_nothing(tls: Tls) -> None:
    async with serving(tls=tls) as address:
        connections = [await asyncio.open_connection(*address) for _ in range(30)]
        assert await exchange(tls, address) == b"hello"
    # The listener is closed, and with it what had not even begun.
    for reader, writer in connections:
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def test_a_server_that_does_not_answer_the_handshake() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(-1)
        finally:
            writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    with pytest.raises(Unavailable, match=r"did not accept a connection within 0\.2 s"):
        await HttpTransport(tls=Tls(verify=False), dial_timeout=0.2).dial(f"{host}:{port}")
    server.close()
    await asyncio.sleep(0.05)


# Bytes over TLS


async def test_bad_input_over_tls_is_refused_with_a_status(tls: Tls) -> None:
    context = tls.client_context()
    for data, expected in (
        (b"garbage\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 99\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nA: " + b"x" * 500_000, 431),
    ):
        async with serving(tls=tls, max_message=10) as address:
            async with raw(address, ssl=context) as (reader, writer):
                writer.write(data)
                assert (await response(reader))[0] == expected
                async with asyncio.timeout(PATIENCE):
                    assert await reader.read() == b""


async def test_closing_one_of_two_sockets_while_the_other_parses(tls: Tls) -> None:
    """They share a buffer, and closing TLS reads into it what is left."""
    left: list[Message] = []

    async with serving(tls=tls) as address:
        transport = HttpTransport(tls=tls)
        first, second = [await transport.dial("{}:{}".format(*address)) for _ in range(2)]
        # The server answers all of these; many fit into one read of the first socket.
        for number in range(200):
            await first.send(Message({}, b"first %d" % number))
            await second.send(Message({}, b"second" * 50))
        await asyncio.sleep(0.1)
        async with asyncio.timeout(PATIENCE):
            left.append(await first.recv())
            closing = asyncio.create_task(second.close())
            left += [await first.recv() for _ in range(199)]
        await closing
        assert [message.body for message in left] == [b"first %d" % n for n in range(200)]
        await first.close()


# Certificates that are renewed while connections stand


class Mounted:
    """A folder with certificate and key that is replaced as Kubernetes replaces a mounted secret.

    `certificate` and `key` are symlinks into `current`, itself one to a folder of a generation.
    """

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.folder = folder
        self._authority = authority
        self._generations = itertools.count()
        self.renew()
        for name in ("certificate", "key"):
            (folder / name).symlink_to(f"current/{name}")
        self.tls = Tls(
            cert_file=str(folder / "certificate"),
            key_file=str(folder / "key"),
            ca_file=authority.file,
            client_auth=True,
        )

    def renew(self, *, broken: bool = False) -> str:
        """Switch to a new generation, and return the name its certificate has."""
        name = f"generation-{next(self._generations)}"
        certificate, key = self._authority.issue(name)
        if broken:
            key = self._authority.issue(f"{name}-other")[1]
        generation = self.folder / name
        generation.mkdir()
        Path(certificate).rename(generation / "certificate")
        Path(key).rename(generation / "key")
        link = self.folder / "next"
        link.symlink_to(name)
        link.replace(self.folder / "current")
        return name


@pytest.fixture
def mounted(tmp_path: Path, authority: Authority) -> Mounted:
    return Mounted(tmp_path, authority)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have files looked at for every connection."""
    monkeypatch.setattr("shoal.tls.RENEWAL", 0.0)


def common_name(socket: Any) -> str:
    """Return whose certificate the peer of a client's socket has shown."""
    subject = socket._transport.get_extra_info("peercert")["subject"]
    return str(dict(pair for part in subject for pair in part)["commonName"])


def join_files(target: Path, *sources: str) -> None:
    target.write_bytes(b"".join(Path(source).read_bytes() for source in sources))


@contextlib.asynccontextmanager
async def connected(tls: Tls, address: tuple[str, int]) -> AsyncIterator[Any]:
    async with asyncio.timeout(PATIENCE):
        socket = await HttpTransport(tls=tls).dial("{}:{}".format(*address))
        try:
            yield socket
        finally:
            await socket.close()


async def ask(socket: Any) -> bytes:
    async with asyncio.timeout(PATIENCE):
        await socket.send(Message({}, b"hello"))
        body: bytes = (await socket.recv()).body
        return body


@pytest.mark.usefixtures("eager")
async def test_new_files_are_used_by_new_connections_and_old_ones_go_on(
    mounted: Mounted, tls: Tls
) -> None:
    async with serving(tls=mounted.tls) as address, connected(tls, address) as old:
        assert common_name(old) == "generation-0"
        for number in (1, 2):
            mounted.renew()
            async with connected(tls, address) as new:
                assert common_name(new) == f"generation-{number}"
                assert await ask(new) == b"hello"
            assert await ask(old) == b"hello"


@pytest.mark.usefixtures("eager")
async def test_a_client_shows_its_new_certificate(
    mounted: Mounted, tls: Tls, authority: Authority
) -> None:
    shown: list[str] = []

    async def note(socket: Any) -> None:
        shown.append(common_name(socket))
        await socket.send(await socket.recv())

    server = Tls(
        cert_file=tls.cert_file, key_file=tls.key_file, ca_file=authority.file, client_auth=True
    )
    listener = await HttpTransport(tls=server).listen("127.0.0.1:0", note)
    client = HttpTransport(tls=mounted.tls)
    for _ in range(2):
        socket = await client.dial(listener.address)
        assert await ask(socket) == b"hello"
        await socket.close()
        mounted.renew()
    await listener.close()
    assert shown == ["generation-0", "generation-1"]


@pytest.mark.usefixtures("eager")
async def test_bad_new_files_keep_the_old_certificate(
    mounted: Mounted, tls: Tls, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tls=mounted.tls) as address:
        mounted.renew(broken=True)
        for _ in range(3):
            async with connected(tls, address) as socket:
                assert common_name(socket) == "generation-0"
                assert await ask(socket) == b"hello"
        (error,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert "does not belong to the certificate" in error.getMessage()
        assert "stays in use" in error.getMessage()
        (mounted.folder / "current").unlink()  # not even there
        async with connected(tls, address) as socket:
            assert common_name(socket) == "generation-0"
        mounted.renew()
        async with connected(tls, address) as socket:
            assert common_name(socket) == "generation-2"


@pytest.mark.usefixtures("eager")
async def test_a_new_authority_is_trusted(tls: Tls, authority: Authority, tmp_path: Path) -> None:
    trusted = tmp_path / "trusted.pem"
    join_files(trusted, authority.file)
    other = Authority(tmp_path, "other")
    stranger = identity(other, "stranger")
    server = Tls(
        cert_file=tls.cert_file, key_file=tls.key_file, ca_file=str(trusted), client_auth=True
    )
    client = Tls(cert_file=stranger.cert_file, key_file=stranger.key_file, ca_file=authority.file)
    async with serving(tls=server) as address:
        with pytest.raises((ConnectionClosed, Unavailable)):
            await exchange(client, address)
        join_files(trusted, authority.file, other.file)
        assert await exchange(client, address) == b"hello"


async def test_files_are_looked_at_once_a_second_and_not_in_the_loop(
    mounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    where: list[int] = []
    real = os.stat

    def stat(path: Any, **options: Any) -> os.stat_result:
        if str(path).startswith(str(mounted.folder)):
            where.append(threading.get_ident())
        return real(path, **options)

    live = LiveContext(mounted.tls, mounted.tls.server_context)
    monkeypatch.setattr("shoal.tls.os.stat", stat)
    monkeypatch.setattr("shoal.tls.RENEWAL", 3600.0)
    live._looked = -4000.0
    first = await live.current()
    assert all([await live.current() is first for _ in range(100)])
    assert len(where) == 2
    assert threading.get_ident() not in where


async def test_a_disk_that_hangs_delays_one_handshake(
    mounted: Mounted, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveContext(mounted.tls, mounted.tls.server_context)
    stuck = threading.Event()
    monkeypatch.setattr("shoal.tls._state", lambda files: stuck.wait(PATIENCE) and [])
    monkeypatch.setattr("shoal.tls.PATIENCE", 0.01)
    try:
        async with asyncio.timeout(PATIENCE / 2):
            for _ in range(10):
                assert isinstance(await live.current(), ssl.SSLContext)
    finally:
        stuck.set()
