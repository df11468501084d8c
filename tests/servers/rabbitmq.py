"""RabbitMQ, as Debian packages it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from tests.servers import Server, find

_SCRIPTS = Path("/usr/lib/rabbitmq/bin")  # Debian's in the search path insist on a user's account


class RabbitServer(Server):
    """A RabbitMQ node of its own; `config` is text for its configuration file."""

    binary = "rabbitmq-server"
    package = "rabbitmq-server"
    ports = 4

    def __init__(self, config: str = "", *flags: str) -> None:
        super().__init__(*flags)
        self.config = config
        self.node = f"shoal{self.port}@localhost"
        self._up = 0  # how often the log says so when it is

    @property
    def url(self) -> str:
        """Where it listens, as Go Micro's options take it."""
        return f"amqp://guest:guest@{self.address}"

    @property
    def secure(self) -> str:
        """Where its configuration may let it listen with TLS, as `host:port`."""
        return f"127.0.0.1:{self.more_ports[2]}"

    def command(self) -> list[str]:
        config = f"listeners.tcp.1 = {self.address}\n{self.config}"
        (self.folder / "rabbitmq.conf").write_text(config, encoding="utf-8")
        log = self.folder / "log"
        self._up = 1 + (self.log().count("startup complete") if log.exists() else 0)
        # The port mapper goes with the node: one that the node starts would stay for ever.
        mapper = f"epmd -port {self.more_ports[1]}"
        there = f"{mapper} -names >/dev/null 2>&1"
        start = f'{mapper} & until {there}; do sleep 0.1; done; exec "$0"'
        return ["sh", "-c", start, script(self.binary)]

    def environment(self) -> dict[str, str]:
        distribution, names, _ = self.more_ports
        folder = str(self.folder)
        return {
            "HOME": folder,  # where Erlang keeps its cookie
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(names),
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_DIST_PORT": str(distribution),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.folder / "none"),
            "RABBITMQ_MNESIA_BASE": folder,
            "RABBITMQ_LOG_BASE": folder,
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": str(self.folder / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            # The script becomes the node, which then is what signals reach.
            "RUNNING_UNDER_SYSTEMD": "true",
            # One thread, no busy waiting: the tests share the machine with it.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": (
                "+S 1:1 +sbwt none +sbwtdcpu none +sbwtdio none"
                " -kernel inet_dist_use_interface {127,0,0,1}"
            ),
        }

    async def ready(self) -> bool:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(b"AMQP\x00\x00\x09\x01")
            # It listens before it can be used.
            return (await reader.read(1)) == b"\x01" and self.log().count(
                "startup complete"
            ) >= self._up
        finally:
            writer.close()

    async def control(self, *words: str) -> str:
        """Run rabbitmqctl with these words and return what it prints."""
        process = await asyncio.create_subprocess_exec(
            script("rabbitmqctl"),
            *("--node", self.node, "--quiet", *words),
            env={**os.environ, **self.environment(), "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": ""},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
        if process.returncode:
            raise RuntimeError(f"rabbitmqctl {' '.join(words)}:\n{output.decode()}")
        return output.decode()


def script(name: str) -> str:
    """Return the path of one of RabbitMQ's programs; raises MissingServer."""
    path = _SCRIPTS / name
    return str(path) if path.exists() else find(name)
