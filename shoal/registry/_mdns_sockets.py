"""Module _mdns_sockets has the UDP sockets mDNS speaks through."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from shoal.errors import Unavailable

logger = logging.getLogger(__name__)

GROUP4, GROUP6, PORT = "224.0.0.251", "ff02::fb", 5353
_GROUP6 = socket.inet_pton(socket.AF_INET6, GROUP6)
_SIZE = 65536
_AT_ONCE = 32  # datagrams read before other work gets its turn
_AT_END = 1000
_INTERFACES = 64

Address = tuple[Any, ...]
Receive = Callable[["Multicast", bytes, Address], None]

_FIX = "let multicast through, or choose another registry: --registry static, memory, etcd, ..."


class Multicast:
    """A socket for each of IPv4 and IPv6 that speaks to the mDNS group.

    One that listens has the group's port, which it shares with all who want it on this machine,
    and hears what is sent to the group; one that does not has a port of its own, for answers.
    """

    def __init__(self, receive: Receive, *, listen: bool, interface: str = "") -> None:
        """Open the sockets; raises Unavailable with what to do where multicast cannot work."""
        self._receive = receive
        self._listen = listen
        self._interface = interface
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[int, socket.socket] = {}
        self._joined: set[tuple[int, int]] = set()
        problems = []
        for family in (socket.AF_INET, socket.AF_INET6):
            try:
                self._sockets[family] = self._open(family)
            except OSError as error:
                problems.append(str(error))
        try:
            self.join()
            if not self._sockets:
                raise Unavailable(f"mdns: no socket for multicast ({problems[0]}): {_FIX}")
        except BaseException:
            self.close()
            raise
        for sock in self._sockets.values():
            self._loop.add_reader(sock, self._readable, sock)

    def __repr__(self) -> str:
        names = [f"{sock.getsockname()[:2]}" for sock in self._sockets.values()]
        return f"Multicast({', '.join(names)}, joined={len(self._joined)})"

    def join(self) -> None:
        """Join the group on every interface, also on those that came since the last time."""
        if not self._listen:
            return
        problem: OSError | None = None
        for index, _ in self._interfaces():
            for family, sock in self._sockets.items():
                if (family, index) not in self._joined:
                    try:
                        _join(sock, family, index)
                        self._joined.add((family, index))
                    except OSError as error:  # down, or cannot multicast
                        problem = error
        if not self._joined:
            raise Unavailable(f"mdns: no network interface takes multicast ({problem}): {_FIX}")

    def send(self, data: bytes) -> None:
        """Send to the group; raises Unavailable if no interface takes it."""
        problems = [
            problem
            for family, sock in self._sockets.items()
            if (problem := self._send(family, sock, data))
        ]
        if len(problems) == len(self._sockets):
            raise Unavailable(f"mdns: the network takes no multicast ({problems[0]}): {_FIX}")

    def reply(self, data: bytes, address: Address) -> None:
        """Send to one address; what cannot be sent is lost, as with UDP anyway."""
        sock = self._sockets.get(socket.AF_INET if len(address) == 2 else socket.AF_INET6)
        if sock is not None:
            try:
                sock.sendto(data, address)
            except OSError as error:
                logger.debug("mdns: no reply to %s: %s", address, error)

    def drain(self) -> None:
        """Receive what has arrived but was not read yet, because other work had its turn."""
        for sock in list(self._sockets.values()):
            self._readable(sock, _AT_END)

    def close(self) -> None:
        """Close the sockets."""
        for sock in self._sockets.values():
            self._loop.remove_reader(sock)
            sock.close()
        self._sockets.clear()

    def _open(self, family: int) -> socket.socket:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            with suppress(OSError):  # some systems' default is less than the largest datagram,
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * _SIZE)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * _SIZE)  # or than a fleet
            host = ""
            if family == socket.AF_INET:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
                host = GROUP4  # nothing but what is sent to the group: no answers to far networks
            else:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            if self._listen:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if hasattr(socket, "SO_REUSEPORT"):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            sock.bind((host, PORT) if self._listen else ("", 0))
        except BaseException:
            sock.close()
            raise
        return sock

    def _interfaces(self) -> Iterator[tuple[int, str]]:
        found = socket.if_nameindex()[:_INTERFACES]
        if self._interface:
            chosen = [item for item in found if item[1] == self._interface]
            if not chosen:
                names = ", ".join(name for _, name in found)
                raise Unavailable(
                    f"mdns: there is no network interface {self._interface!r}: use one of {names}"
                )
            found = chosen
        return iter(found)

    def _send(self, family: int, sock: socket.socket, data: bytes) -> OSError | None:
        group = (GROUP4, PORT) if family == socket.AF_INET else (GROUP6, PORT)
        problem: OSError | None = None
        if not self._interface:  # the default route's, as Go Micro does
            try:
                sock.sendto(data, group)
                return None
            except BlockingIOError:
                return None  # the queue is full: lost, as with UDP anyway
            except OSError as error:
                problem = error
        sent = False
        # No default route: every interface, so that processes of this machine find each other.
        for index, _ in self._interfaces():
            try:
                _choose(sock, family, index)
                sock.sendto(data, group)
                sent = True
            except OSError as error:
                problem = error
        with suppress(OSError):
            _choose(sock, family, 0)
        return None if sent else problem

    def _readable(self, sock: socket.socket, limit: int = _AT_ONCE) -> None:
        for _ in range(limit):
            try:
                data, ancillary, _, address = sock.recvmsg(_SIZE, 128)
            except OSError:  # nothing more, or somebody refused what was sent before
                return
            if self._listen and sock.family == socket.AF_INET6 and not _to_group(ancillary):
                continue
            self._receive(self, data, address)
            if sock.fileno() < 0:
                return


def _join(sock: socket.socket, family: int, index: int) -> None:
    if family == socket.AF_INET:
        request = struct.pack("=4s4si", socket.inet_aton(GROUP4), bytes(4), index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)
    else:
        request = struct.pack("=16si", _GROUP6, index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)


def _choose(sock: socket.socket, family: int, index: int) -> None:
    if family == socket.AF_INET:
        request = struct.pack("=4s4si", bytes(4), bytes(4), index)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)


def _to_group(ancillary: list[tuple[int, int, bytes]]) -> bool:
    # A datagram to this machine's own address may come from far away, with a forged sender.
    return any(
        level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO and data[:16] == _GROUP6
        for level, kind, data in ancillary
    )
