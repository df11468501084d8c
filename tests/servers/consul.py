"""Consul: an agent in development mode, which is a server too and keeps all in memory.

Building it downloads 300 modules and takes six minutes on two cores, once.
"""

from __future__ import annotations

import asyncio
from typing import ClassVar

from tests.servers import Server


class ConsulServer(Server):
    """One agent that is a whole datacenter: what it knows is gone when it ends."""

    binary = "consul"
    module = "github.com/hashicorp/consul"
    ports: ClassVar[int] = 6

    @property
    def dns(self) -> str:
        """Where it answers DNS, as `host:port`."""
        return f"127.0.0.1:{self.more_ports[0]}"

    @property
    def https(self) -> str:
        """Where it answers HTTPS if a flag says so, as `host:port`."""
        return f"127.0.0.1:{self.more_ports[4]}"

    def command(self) -> list[str]:
        dns, server, lan, wan, _ = self.more_ports
        return [
            *["consul", "agent", "-dev", "-bind=127.0.0.1", "-client=127.0.0.1"],
            *[f"-http-port={self.port}", f"-dns-port={dns}", f"-server-port={server}"],
            *[f"-serf-lan-port={lan}", f"-serf-wan-port={wan}", "-grpc-port=-1"],
            *["-grpc-tls-port=-1", f"-node=node-{self.port}", "-disable-host-node-id"],
            *["-log-level=warn"],
        ]

    async def ready(self) -> bool:
        """Tell whether it has a leader, which is it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(b"GET /v1/status/leader HTTP/1.0\r\n\r\n")
            answer = await reader.read()
        finally:
            writer.close()
        return answer.endswith(f'"127.0.0.1:{self.more_ports[1]}"'.encode())
