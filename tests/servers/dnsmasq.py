"""dnsmasq: a nameserver whose records are its flags."""

from __future__ import annotations

import asyncio

from tests.servers import DEADLINE, Server, bindable, listening

DOMAIN = "example"


class DnsmasqServer(Server):
    """A nameserver for one domain; `tell` changes its records while others ask."""

    binary = "dnsmasq"
    package = "dnsmasq-base"

    def command(self) -> list[str]:
        return [
            *["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="],
            *["--user=", "--group=", "--no-resolv", "--no-hosts", "--listen-address=127.0.0.1"],
            *["--bind-interfaces", f"--port={self.port}", f"--local=/{DOMAIN}/"],
        ]

    async def ready(self) -> bool:
        """Tell whether it listens."""
        return await listening(self.port)

    async def kill(self) -> None:
        """End it, and the children it answers connections with, which hold its port too."""
        await super().kill()
        async with asyncio.timeout(DEADLINE):
            while not bindable(self.port):  # noqa: ASYNC110  # nobody tells
                await asyncio.sleep(0.01)

    async def tell(self, *flags: str) -> None:
        """Start it anew with other records, such as `--srv-host=_a._tcp.example,host,80`."""
        self.flags = flags
        await self.kill()  # asked to stop it would leave its connections to children that listen
        await self.start()
