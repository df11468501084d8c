"""Module _settings is what a server can be told beside the parts it is made of."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Names, limits and times of a server; all times are seconds."""

    version: str = "latest"
    id: str = field(default_factory=lambda: secrets.token_hex(8))
    """Goes into the node's id behind the name; mdns has room for 63 bytes of both."""
    address: str = ":0"
    advertise: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    register_ttl: float = 90.0
    register_interval: float = 30.0
    concurrency: int = 10_000
    """Calls that may run at once; more are refused with TooManyRequests."""
    connections: int = 10_000
    """Sockets that may be open; who opens more is told so, and to try another node."""
    threads: int = 32
    """Threads for handlers that are no coroutines."""
    linger: float = 0.0
    """How long calls are still taken after deregistration, for caches to notice."""
    grace: float = 10.0
    """How long a stopping server waits for the calls that run."""
    beside: Sequence[object] = ()
    """Other parts of the service, whose numbers the server tells with its own."""
