"""An etcd, alone or one member of a cluster."""

from __future__ import annotations

import asyncio
import ssl

from tests.servers import Server


class EtcdServer(Server):
    """etcd 3.4, which has the v3 API and, asked for it, the v2 keys too."""

    binary = "etcd"
    package = "etcd-server"
    ports = 2

    def __init__(self, *flags: str, tls: ssl.SSLContext | None = None) -> None:
        """Start it with more flags; `tls` is what it is asked with, if it serves https."""
        super().__init__("--enable-v2=true", *flags)
        self.tls = tls
        self.name = f"member{self.port}"
        self.cluster = self.member

    @property
    def url(self) -> str:
        """Where it serves clients."""
        return f"{'https' if self.tls else 'http'}://{self.address}"

    @property
    def member(self) -> str:
        """Its part of `--initial-cluster`."""
        return f"{self.name}=http://127.0.0.1:{self.more_ports[0]}"

    def command(self) -> list[str]:
        peer = self.member.partition("=")[2]
        return [
            *("etcd", "--name", self.name, "--data-dir", "data"),
            *("--listen-client-urls", self.url, "--advertise-client-urls", self.url),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", self.cluster, "--logger", "zap"),
        ]

    def environment(self) -> dict[str, str]:
        return {"ETCD_UNSUPPORTED_ARCH": "arm64"}  # 3.4 wants to be told there

    async def ready(self) -> bool:
        """Tell whether it has a leader, itself or another."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=self.tls)
        try:
            writer.write(b"GET /health HTTP/1.0\r\n\r\n")
            return b"200 OK" in await reader.read(100)
        finally:
            writer.close()


def cluster(size: int) -> list[EtcdServer]:
    """Return the members of a cluster, none of them started."""
    members = [EtcdServer() for _ in range(size)]
    for member in members:
        member.cluster = ",".join(one.member for one in members)
    return members
