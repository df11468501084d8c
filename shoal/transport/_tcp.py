"""Module _tcp dials and accepts connections, plain or TLS, for transports that frame on TCP."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket as tcp
import ssl
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from shoal.errors import BadRequest, Unavailable
from shoal.tls import LiveContext
from shoal.transport import NO_METADATA, Accept, Listener, _unix
from shoal.transport._accepted import Accepted, AcceptedSockets
from shoal.transport._address import candidates, join, one, unix_path

logger = logging.getLogger(__name__)

ID = "shoal.transport"
BACKLOG = 1024
MOST = 20_000  # connections of a listener; servers let in fewer, and say why
AT_ONCE = 64  # connections accepted before other work gets its turn
MOMENT = 0.1  # seconds in which the first message of a connection has surely come
PAUSE = 1.0  # seconds without accepting after the system had no room for another connection

# A peer whose machine is gone says nothing: ask after 15 s of silence, as Go does, and three times
# in as many seconds again.
_KEEPALIVE = (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))

# A name may stand for addresses this machine does not have, IPv6 ones above all.
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

P = TypeVar("P", bound=asyncio.BaseProtocol)


async def dial(
    address: str, protocol: Callable[[], P], secure: LiveContext | None, timeout: float
) -> P:
    """Connect to `host:port` or `unix:///path` within seconds; an empty host is this machine.

    Raises Unavailable, naming the address and what is wrong, and BadRequest for no address.
    """
    path = unix_path(address)
    host, port = one(address) if path is None else ("", 0)
    loop = asyncio.get_running_loop()
    # Where the loop has a timeout of its own for the handshake, it must not be the one that fires.
    own: dict[str, Any] = {"ssl_handshake_timeout": timeout + 1} if secure else {}
    try:
        async with asyncio.timeout(timeout):
            context = await secure.current() if secure else None
            if path is not None:
                own["server_hostname"] = "localhost" if secure else None
                transport, connection = await loop.create_unix_connection(
                    protocol, path[0], ssl=context, **own
                )
            else:
                transport, connection = await loop.create_connection(
                    protocol, host or "localhost", port, ssl=context, **own
                )
    except TimeoutError:
        raise Unavailable(
            f"{address} did not accept a connection within {timeout:g} s", id=ID
        ) from None
    except ssl.SSLError as error:
        raise Unavailable(f"no TLS connection to {address}: {error}", id=ID) from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise Unavailable(f"cannot connect to {address}: {reason}", id=ID) from error
    except UnicodeError as error:
        raise BadRequest(f"{address!r} is no address: {error}", id=ID) from error
    if path is None:
        _keep_alive(transport.get_extra_info("socket"))
    return connection


class TcpListener(Listener):
    """Owns listening sockets, and a task for each connection from the moment it is accepted.

    asyncio.Server leaves connections behind that it has accepted but not announced yet (with TLS,
    for as long as the handshake takes), and under uvloop it gives up accepting for good after
    some errors. So this accepts by itself.
    """

    def __init__(
        self,
        accept: Accept,
        make: Callable[[AcceptedSockets], Accepted],
        secure: LiveContext | None,
        handshake_timeout: float,
        metadata: Mapping[str, str] = NO_METADATA,
    ) -> None:
        self.metadata = metadata
        self.address = ""
        self._make = make
        self._secure = secure
        self._handshake_timeout = handshake_timeout
        self._loop = asyncio.get_running_loop()
        self._listening: list[tcp.socket] = []
        self._sockets = AcceptedSockets(accept)
        self._arrived: set[tcp.socket] = set()  # accepted, and their task has not begun
        self._last = float("-inf")  # the loop's time when a connection was accepted
        self._pause: asyncio.TimerHandle | None = None
        self._file: tuple[str, tuple[int, int] | None] | None = None  # a Unix socket's

    def __repr__(self) -> str:
        state = "" if self._listening else " closed"
        return f"<listener at {self.address} with {len(self._sockets)} sockets{state}>"

    async def open(self, address: str) -> None:
        """Bind and begin to accept. Raises Unavailable or BadRequest."""
        failure: OSError | None = None
        path = unix_path(address)
        for host, port in [path] if path is not None else candidates(address):
            try:
                if path is not None:
                    self._listening = [await asyncio.to_thread(_unix.bind, *path, BACKLOG)]
                    self._file = path[0], _unix.identity(path[0])
                else:
                    self._listening = await _bind(host, port)
            except OSError as error:
                failure = error
            except UnicodeError as error:
                raise BadRequest(f"{address!r} is no address: {error}", id=ID) from error
            else:
                bound = self._listening[0].getsockname()
                self.address = f"unix://{host}" if path else join(host or "0.0.0.0", bound[1])
                self._watch()
                return
        taken = failure is not None and failure.errno == errno.EADDRINUSE
        reason = "it is taken already" if taken else getattr(failure, "strerror", "") or failure
        raise Unavailable(f"cannot listen at {address}: {reason}", id=ID) from failure

    async def close(self) -> None:
        listening, self._listening = self._listening, []
        if self._pause is not None:
            self._pause.cancel()
        for socket in listening:
            self._loop.remove_reader(socket.fileno())
            # Whom the system has let in may have sent something: cut now it would be lost.
            for _ in range(BACKLOG // AT_ONCE):
                if not self._accept_from(socket):
                    break
            socket.close()
        if listening and self._file is not None:
            _unix.remove(*self._file)
        try:
            if self._loop.time() < self._last + MOMENT:
                await asyncio.sleep(MOMENT)
        finally:
            await self._end()

    async def _end(self) -> None:
        try:
            await self._sockets.close()
        finally:
            # A task that is cancelled before its first step has not taken its connection.
            for socket in self._arrived:
                socket.close()
            self._arrived.clear()

    def _watch(self) -> None:
        self._pause = None
        for socket in self._listening:
            self._loop.add_reader(socket.fileno(), self._accept_from, socket)

    def _accept_from(self, listening: tcp.socket) -> bool:
        """Accept who waits; return whether there may be more of them."""
        for _ in range(AT_ONCE):
            try:
                socket, peer = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return False
            except OSError as error:
                if self._listening:
                    self._no_room(error)
                return False
            if len(self._sockets) >= MOST:
                socket.close()
                continue
            socket.setblocking(False)
            self._last = self._loop.time()
            self._arrived.add(socket)
            self._sockets.start(self._serve(socket, join(*peer[:2]) if peer else self.address))
        return True

    def _no_room(self, error: OSError) -> None:
        logger.warning(
            "%s cannot accept a connection, trying again in %g s: %s", self.address, PAUSE, error
        )
        for socket in self._listening:
            self._loop.remove_reader(socket.fileno())
        self._pause = self._loop.call_later(PAUSE, self._watch)

    async def _serve(self, socket: tcp.socket, peer: str) -> None:
        # Until it is discarded, closing the listener closes it.
        context = await self._secure.current() if self._secure else None
        self._arrived.discard(socket)
        limit = {"ssl_handshake_timeout": self._handshake_timeout} if self._secure else {}
        # Made here, since uvloop with TLS returns a protocol of its own.
        connection = self._make(self._sockets)
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection, socket, ssl=context, **limit
            )
        except (OSError, TimeoutError) as error:
            logger.info("no connection from %s: %s", peer, error or "it went away")
            return
        await connection.serve(self._sockets)


async def _bind(host: str, port: int) -> list[tcp.socket]:
    """Return sockets that listen at all addresses of a host, at one port."""
    if not host:
        return [_everywhere(port)]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=tcp.SOCK_STREAM, flags=tcp.AI_PASSIVE)
    chosen = port == 0
    sockets: list[tcp.socket] = []
    failure: OSError | None = None
    for family, _, _, _, name in dict.fromkeys(found):
        try:
            # Whatever port the first got, the others need the same.
            socket = tcp.create_server(
                (name[0], port, *name[2:]),
                family=family,
                backlog=BACKLOG,
            )
        except OSError as error:
            failure = failure or error
            if error.errno not in _ABSENT and not (chosen and sockets):
                break
        else:
            sockets.append(_ready(socket))
            port = socket.getsockname()[1]
    else:
        if sockets:
            return sockets
    for socket in sockets:
        socket.close()
    assert failure is not None
    raise failure


def _everywhere(port: int) -> tcp.socket:
    if tcp.has_dualstack_ipv6():
        try:
            return _ready(
                tcp.create_server(
                    ("", port), family=tcp.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True
                )
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise
    return _ready(tcp.create_server(("", port), backlog=BACKLOG))


def _ready(socket: tcp.socket) -> tcp.socket:
    socket.setblocking(False)
    _keep_alive(socket)  # accepted connections inherit it
    return socket


def _keep_alive(socket: Any) -> None:
    """Have the system ask a silent peer whether it is still there."""
    try:
        socket.setsockopt(tcp.SOL_SOCKET, tcp.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE:
            option = getattr(tcp, name, None)  # not every system has them
            if option is not None:
                socket.setsockopt(tcp.IPPROTO_TCP, option, value)
    except OSError as error:
        logger.debug("no keep-alive: %s", error)
