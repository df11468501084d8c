"""network: machines of their own for proofs, with delay, loss and partitions between any two.

Each host is a network namespace whose one interface leads into this process, which passes packets
on or does not. That says what happens between two hosts, packet by packet and from a seed, and
needs nothing of the kernel but namespaces and /dev/net/tun (netem is often not built).
"""

from __future__ import annotations

import asyncio
import fcntl
import itertools
import os
import random
import shutil
import struct
import subprocess
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from bench.reliability._processes import Fleet, Process
from bench.reliability._service import INTERFACE

_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_MULTICAST = range(224, 240)
DEVICE = "net0"


class Forbidden(Exception):
    """This machine does not let a test make networks; the sentence says why."""


@dataclass(slots=True)
class Link:
    """What happens to packets from one host to another: seconds of delay, share that is lost."""

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0


@dataclass(slots=True)
class Host:
    """A namespace with an address."""

    namespace: str
    address: str
    tun: int
    network: Network = field(repr=False)

    async def start(self, fleet: Fleet, module: str, *words: str, **environment: str) -> Process:
        """Start a Python module of a fleet on this host."""
        python = (sys.executable, "-m", module)
        return await self.command(fleet, *python, *words, **environment)

    async def command(self, fleet: Fleet, *command: str, **environment: str) -> Process:
        """Start any program of a fleet on this host."""
        environment = {INTERFACE: DEVICE, **environment}
        inside = ("ip", "netns", "exec", self.namespace, *command)
        return await fleet.command(*inside, **environment)

    async def service(
        self, fleet: Fleet, name: str = "proof", *flags: str, **environment: str
    ) -> Process:
        """Start `_service.py` on this host, listening at its address."""
        words = (name, f"--server_address={self.address}:0", *flags)
        return await self.start(fleet, "bench.reliability._service", *words, **environment)

    async def caller(self, fleet: Fleet, service: str = "proof", **environment: str) -> Process:
        """Start `_caller.py` on this host: a client that is told what to call."""
        return await self.start(fleet, "bench.reliability._caller", service, **environment)


class Network:
    """Hosts and what lies between them. Left, it has removed every namespace it made."""

    def __init__(self, seed: int = 0) -> None:
        """Raises Forbidden where this machine does not allow it."""
        reason = forbidden()
        if reason:
            raise Forbidden(reason)
        self._random = random.Random(seed)
        self._prefix = f"shoal-{uuid.uuid4().hex[:6]}"
        self._numbers = itertools.count(1)
        self._hosts: dict[bytes, Host] = {}  # by address
        self._paths: dict[tuple[bytes, bytes], Link] = {}
        self.dropped = 0
        self.multicast = True
        """Whether packets to groups are passed on, as switches often do not."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        loop = asyncio.get_running_loop()
        for host in self._hosts.values():
            loop.remove_reader(host.tun)
            os.close(host.tun)
            _ip("netns", "del", host.namespace)
        self._hosts.clear()

    async def host(self) -> Host:
        """Add a host, which reaches all others. Its processes must end before the network does."""
        number = next(self._numbers)
        namespace, address = f"{self._prefix}-{number}", f"10.77.0.{number}"
        device = f"{self._prefix[-6:]}{number}"  # here only until it is moved
        _ip("netns", "add", namespace)
        tun = -1
        try:
            tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
            wanted = struct.pack("16sH", device.encode(), _IFF_TUN | _IFF_NO_PI)
            fcntl.ioctl(tun, _TUNSETIFF, wanted)
            _ip("link", "set", device, "netns", namespace, "name", DEVICE)
            inside = ("-n", namespace)
            _ip(*inside, "link", "set", "lo", "up")
            _ip(*inside, "link", "set", DEVICE, "multicast", "on", "txqueuelen", "10000", "up")
            _ip(*inside, "addr", "add", f"{address}/24", "dev", DEVICE)
            _ip(*inside, "route", "add", "default", "dev", DEVICE)
        except BaseException:
            if tun >= 0:
                os.close(tun)
            _ip("netns", "del", namespace)
            raise
        host = Host(namespace, address, tun, self)
        self._hosts[bytes(map(int, address.split(".")))] = host
        asyncio.get_running_loop().add_reader(tun, self._readable, tun)
        return host

    def between(
        self, one: Host, other: Host, *, delay: float = 0.0, jitter: float = 0.0, loss: float = 0.0
    ) -> None:
        """Set what happens to packets between two hosts, in both directions; times are seconds."""
        for source, target in ((one, other), (other, one)):
            path = Link(delay, jitter, loss)
            self._paths[_key(source), _key(target)] = path

    def cut(self, one: Host, *others: Host) -> None:
        """Let no packet through between a host and others (all, if none is named)."""
        for other in others or self._hosts.values():
            self.between(one, other, loss=1.0)

    def heal(self) -> None:
        """Let everything through at once."""
        self._paths.clear()

    def _readable(self, tun: int) -> None:
        for _ in range(64):
            try:
                packet = os.read(tun, 65536)
            except OSError:  # nothing more
                return
            if len(packet) < 20 or packet[0] >> 4 != 4:
                continue  # IPv6 has no addresses here
            source, target = packet[12:16], packet[16:20]
            if target[0] in _MULTICAST:
                for key in self._hosts:
                    if key != source and self.multicast:
                        self._pass(source, key, packet)
            elif target in self._hosts:
                self._pass(source, target, packet)

    def _pass(self, source: bytes, target: bytes, packet: bytes) -> None:
        path = self._paths.get((source, target))
        if path is None:
            self._write(target, packet)
        elif path.loss and self._random.random() < path.loss:
            self.dropped += 1
        elif path.delay:
            delay = path.delay + path.jitter * self._random.random()
            asyncio.get_running_loop().call_later(delay, self._write, target, packet)
        else:
            self._write(target, packet)

    def _write(self, target: bytes, packet: bytes) -> None:
        host = self._hosts.get(target)
        if host is not None:
            try:
                os.write(host.tun, packet)
            except OSError:  # its queue is full, or it is down
                self.dropped += 1


def forbidden() -> str:
    """Return why this machine does not allow networks to be made, empty if it does."""
    if sys.platform != "linux":
        return "network namespaces need Linux"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "there is no `ip` (iproute2)"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    name = f"shoal-{uuid.uuid4().hex[:6]}"
    try:
        _ip("netns", "add", name)
        _ip("netns", "del", name)
    except OSError as error:
        return f"the kernel forbids network namespaces: {error}"
    return ""


def _key(host: Host) -> bytes:
    return bytes(map(int, host.address.split(".")))


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip()}")
