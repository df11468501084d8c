"""Redis, as Debian packages it."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from tests.servers import Server


class RedisServer(Server):
    """A Redis without persistence; flags are lines of its configuration: `--requirepass x`."""

    binary = "redis-server"
    package = "redis-server"
    ports = 2
    persistence: ClassVar[list[str]] = ["--save", "", "--appendonly", "no"]

    def command(self) -> list[str]:
        where = ["--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder)]
        return [self.binary, *where, *self.persistence, "--enable-debug-command", "local"]

    async def ready(self) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(b"PING\r\n")
            answer = await reader.readline()
            return answer.startswith((b"+PONG", b"-NOAUTH"))
        finally:
            writer.close()


class DurableRedisServer(RedisServer):
    """A Redis that has what it acknowledged after a restart."""

    persistence: ClassVar[list[str]] = [
        "--save", "", "--appendonly", "yes", "--appendfsync", "always",
    ]  # fmt: skip
