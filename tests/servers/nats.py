"""NATS with JetStream, as Debian packages it."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

from tests.servers import Server


class NatsServer(Server):
    """A NATS server; `config` is text for its configuration file, besides where it listens."""

    binary = "nats-server"
    package = "nats-server"

    def __init__(self, config: str = "", *flags: str) -> None:
        super().__init__(*flags)
        self.config = config

    @property
    def url(self) -> str:
        """Where it listens, as Go Micro's options take it."""
        return f"nats://{self.address}"

    def command(self) -> list[str]:
        self.configure(self.config)
        return [self.binary, "--config", str(self.folder / "config")]

    def configure(self, config: str) -> None:
        """Write its configuration file; a running server reads it again on SIGHUP."""
        self.config = config
        store = json.dumps(str(self.folder / "jetstream"))
        head = f'listen: "{self.address}"\njetstream {{ store_dir: {store} }}\n'
        Path(self.folder / "config").write_text(head + config, encoding="utf-8")

    def reload(self) -> None:
        """Let it read its configuration again."""
        self._signal(signal.SIGHUP)

    async def ready(self) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            return (await reader.readline()).startswith(b"INFO ")
        finally:
            writer.close()
