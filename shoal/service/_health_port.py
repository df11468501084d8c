"""Module _health_port answers probes and scrapes from threads of its own."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from shoal.errors import BadRequest, Unavailable

logger = logging.getLogger(__name__)

LIMIT = 5.0  # seconds for one request, all of it
LONGEST = 8192  # bytes of a request's head
AT_ONCE = 8  # requests; more are closed

TEXT = "text/plain; charset=utf-8"
JSON = "application/json"
_REASONS = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}


@dataclass(frozen=True, slots=True)
class Page:
    """What is answered to a request: an HTTP status, a body and its type."""

    status: int
    body: bytes
    content_type: str = TEXT


class HealthPort:
    """A small HTTP server for a few pages, each made anew for every GET by a function.

    It needs no event loop, so it answers while one is blocked. The functions run in its threads.
    """

    def __init__(self, address: str, pages: Mapping[str, Callable[[], Page]]) -> None:
        """Take `host:port`; without a host it listens on the loopback only.

        Raises BadRequest for an address that cannot be read.
        """
        self.address = ""
        """Where it listens, empty while it does not."""
        self._host, self._port = _parse(address)
        self._pages = dict(pages)
        self._listener: socket.socket | None = None
        self._thread: threading.Thread | None = None
        self._room = threading.BoundedSemaphore(AT_ONCE)

    def __repr__(self) -> str:
        return f"HealthPort({self.address or 'closed'}, {', '.join(self._pages)})"

    def start(self) -> None:
        """Listen and answer. Raises Unavailable if the address cannot be had."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        try:
            listener = socket.create_server((self._host, self._port), family=family, backlog=16)
        except OSError as error:
            where = f"{self._host}:{self._port}"
            raise Unavailable(f"health: cannot listen on {where}: {error.strerror}") from error
        host, port = listener.getsockname()[:2]
        self.address = f"[{host}]:{port}" if family == socket.AF_INET6 else f"{host}:{port}"
        self._listener = listener
        self._thread = threading.Thread(
            target=self._accept, args=(listener,), name="health", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        listener, self._listener, self.address = self._listener, None, ""
        if listener is None:
            return
        with suppress(OSError):  # where a listener cannot be shut down, closing wakes the thread
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        if self._thread is not None:
            self._thread.join(1.0)
            self._thread = None

    def _accept(self, listener: socket.socket) -> None:
        failing = False
        while self._listener is listener:
            try:
                connection, _ = listener.accept()
            except OSError as error:
                if self._listener is not listener:
                    return
                if not failing:
                    logger.warning("health: cannot accept: %s", error)
                failing = True
                threading.Event().wait(0.1)  # out of descriptors, perhaps: soon it may be better
                continue
            failing = False
            if not self._room.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(
                target=self._serve, args=(connection,), name="health-request", daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            with connection:
                head = _read_head(connection)
                if head:
                    connection.settimeout(LIMIT)
                    connection.sendall(self._answer(head))
        except OSError as error:
            logger.debug("health: a request failed: %s", error)
        finally:
            self._room.release()

    def _answer(self, head: bytes) -> bytes:
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        target, _, version = rest.partition(" ")
        page = self._page(method, target.partition("?")[0], version)
        lines = (
            f"HTTP/1.1 {page.status} {_REASONS.get(page.status, 'Service Unavailable')}",
            f"Content-Type: {page.content_type}",
            f"Content-Length: {len(page.body)}",
            "Cache-Control: no-store",
            "Connection: close",
        )
        answer = "\r\n".join(lines).encode() + b"\r\n\r\n"
        return answer if method == "HEAD" else answer + page.body

    def _page(self, method: str, path: str, version: str) -> Page:
        if not version.startswith("HTTP/1."):
            return Page(400, b"this is no HTTP/1 request\n")
        if method not in ("GET", "HEAD"):
            return Page(405, b"only GET and HEAD\n")
        make = self._pages.get(path)
        if make is None:
            return Page(404, f"there are {', '.join(self._pages)}\n".encode())
        try:
            return make()
        except Exception:
            logger.exception("health: %s could not be made", path)
            return Page(500, b"it could not be made, the log says why\n")


def _read_head(connection: socket.socket) -> bytes:
    """Return the head of a request, empty if it does not come in time or is too long."""
    head = b""
    end = time.monotonic() + LIMIT
    while b"\r\n\r\n" not in head:
        left = end - time.monotonic()
        if left <= 0 or len(head) > LONGEST:
            return b""
        connection.settimeout(left)
        data = connection.recv(LONGEST)
        if not data:
            return b""
        head += data
    return head


def _parse(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    if not port.isascii() or not port.isdecimal() or int(port) > 65535:
        raise BadRequest(f"health: {address!r} is no address, write host:port or :port")
    return host, int(port)
