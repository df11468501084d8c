"""An etcd, alone or one member of a cluster."""

from __future__ import annotations

import asyncio
import base64
import ssl
from typing import Any

import httpx

from tests.servers import Server


class EtcdServer(Server):
    """etcd up to 3.5, which has the v3 API and, asked for it, the v2 keys too."""

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

    async def ask(self, path: str, asked: object, token: str = "") -> dict[str, Any]:
        """Ask the v3 API as an operator would, not by the code that is tested."""
        async with httpx.AsyncClient(verify=self.tls or False, trust_env=False) as client:
            headers = {"authorization": token} if token else {}
            answer = await client.post(f"{self.url}/v3/{path}", json=asked, headers=headers)
            assert answer.status_code == 200, answer.text
            return dict(answer.json())

    async def keys(self, prefix: str = "/") -> dict[str, dict[str, Any]]:
        """Return what the keys with a prefix hold: value, lease, mod_revision and so on."""
        end = prefix[:-1] + chr(ord(prefix[-1]) + 1)
        found = await self.ask("kv/range", {"key": encoded(prefix), "range_end": encoded(end)})
        return {
            base64.b64decode(one["key"]).decode(): {
                **one,
                "value": base64.b64decode(one.get("value", "")),
            }
            for one in found.get("kvs", [])
        }

    async def put(self, key: str, value: bytes | str) -> None:
        """Write a key that stays."""
        await self.ask("kv/put", {"key": encoded(key), "value": encoded(value)})

    async def delete(self, key: str) -> None:
        """Delete a key."""
        await self.ask("kv/deleterange", {"key": encoded(key)})

    async def clear(self) -> None:
        """Delete all keys."""
        await self.ask("kv/deleterange", {"key": "AA==", "range_end": "AA=="})

    async def compact(self) -> None:
        """Forget all history up to now."""
        now = (await self.ask("kv/range", {"key": encoded("/")}))["header"]["revision"]
        await self.ask("kv/compaction", {"revision": now, "physical": True})


def encoded(text: bytes | str) -> str:
    """Return bytes as the gateway has them."""
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def cluster(size: int) -> list[EtcdServer]:
    """Return the members of a cluster, none of them started."""
    members = [EtcdServer() for _ in range(size)]
    for member in members:
        member.cluster = ",".join(one.member for one in members)
    return members
