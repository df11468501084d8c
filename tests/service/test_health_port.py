"""Probes are answered from threads, whatever comes over the network."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import shoal
from shoal.service import _health_port
from shoal.service._health_port import HealthPort, Page


def fail() -> Page:
    raise ValueError("no")


PAGES = {"/ok": lambda: Page(200, b"fine\n"), "/ill": lambda: Page(503, b"not\n"), "/bug": fail}


@contextmanager
def port(address: str = ":0") -> Iterator[HealthPort]:
    port = HealthPort(address, PAGES)
    port.start()
    try:
        yield port
    finally:
        port.stop()
    assert not port.address
    assert not [one for one in threading.enumerate() if one.name == "health"]


def ask(port: HealthPort, request: bytes, *, end: bool = False) -> bytes:
    host, _, number = port.address.rpartition(":")
    with socket.create_connection((host.strip("[]"), int(number)), timeout=20) as sock:
        answer = b""
        with contextlib.suppress(OSError):  # it may be closed before it has read all of this
            sock.sendall(request)
            if end:
                sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            while data := sock.recv(4096):
                answer += data
        return answer


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_pages_are_made_anew_for_every_request() -> None:
    with port() as health:
        assert health.address.startswith("127.0.0.1:")  # nobody else reaches it unless told
        answer = ask(health, b"GET /ok?verbose=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"Content-Length: 5" in head
        assert b"Connection: close" in head
        assert body == b"fine\n"
        assert ask(health, b"HEAD /ok HTTP/1.0\r\n\r\n").endswith(b"\r\n\r\n")
        assert status(ask(health, b"GET /ill HTTP/1.1\r\n\r\n")) == 503
        assert status(ask(health, b"GET / HTTP/1.1\r\n\r\n")) == 404
        assert status(ask(health, b"POST /ok HTTP/1.1\r\n\r\n")) == 405
        assert status(ask(health, b"GET /ok\r\n\r\n")) == 400


def test_a_page_that_fails_is_logged_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with port() as health:
        assert status(ask(health, b"GET /bug HTTP/1.1\r\n\r\n")) == 500
    assert "ValueError: no" in caplog.text


@pytest.mark.parametrize(
    "request_bytes",
    [b"", b"\r\n", b"GET /ok HTTP/1.1\r\n", b"\x16\x03\x01" * 30, b"A" * 100_000],
    ids=["nothing", "a line", "half", "tls", "endless"],
)
def test_what_is_no_request_ends_at_once(request_bytes: bytes) -> None:
    with port() as health:
        with contextlib.suppress(ConnectionError):
            assert ask(health, request_bytes, end=True) == b""
        assert status(ask(health, b"GET /ok HTTP/1.1\r\n\r\n")) == 200


def test_slow_clients_take_no_room_from_others_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_health_port, "LIMIT", 0.5)
    with port() as health:
        host, _, number = health.address.rpartition(":")
        with contextlib.ExitStack() as stack:
            slow = [
                stack.enter_context(socket.create_connection((host, int(number)), timeout=20))
                for _ in range(_health_port.AT_ONCE)
            ]
            for sock in slow:
                sock.sendall(b"GET ")
            for sock in slow:
                assert sock.recv(1) == b""  # closed when their time was over
        assert status(ask(health, b"GET /ok HTTP/1.1\r\n\r\n")) == 200


def test_an_address_that_is_taken_is_a_sentence() -> None:
    with port() as health, pytest.raises(shoal.Unavailable, match="health: cannot listen on"):
        HealthPort(health.address, PAGES).start()


@pytest.mark.parametrize("address", ["localhost", "1.2.3.4:http", ":99999", ""])
def test_an_address_that_cannot_be_read_is_a_sentence(address: str) -> None:
    with pytest.raises(shoal.BadRequest, match="write host:port"):
        HealthPort(address, PAGES)


def test_ipv6() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with port("[::1]:0") as health:
        assert health.address.startswith("[::1]:")
        assert status(ask(health, b"GET /ok HTTP/1.1\r\n\r\n")) == 200


def test_running_out_of_descriptors_is_told_once_and_gets_over(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter(range(3))

    class Listener:
        """A listener without descriptors for three connections."""

        def __init__(self, real: socket.socket) -> None:
            self.real = real

        def __getattr__(self, name: str) -> object:
            return getattr(self.real, name)

        def accept(self) -> object:
            if next(failures, None) is not None:
                raise OSError(24, "Too many open files")
            return self.real.accept()

    real = socket.create_server
    monkeypatch.setattr(
        socket, "create_server", lambda *args, **more: Listener(real(*args, **more))
    )
    with port() as health:
        assert status(ask(health, b"GET /ok HTTP/1.1\r\n\r\n")) == 200
    assert caplog.text.count("cannot accept: [Errno 24]") == 1
