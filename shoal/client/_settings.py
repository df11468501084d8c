"""Module _settings is what a client can be told beside the parts it is made of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientSettings:
    """Limits of a client; all times are seconds."""

    timeout: float = 30.0
    """For a whole call, if neither it nor its context has an earlier limit."""
    retries: int = 1
    """Further attempts of an idempotent call that failed midway."""
    pool_size: int = 100
    """Idle connections kept per address."""
    pool_ttl: float = 60.0
    """How long an idle connection is kept."""
    route: tuple[str, str] = ("", "")
    """A service and an address that all calls go to instead: a proxy, which passes them on."""
