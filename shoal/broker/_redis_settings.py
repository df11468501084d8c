"""Module _redis_settings is how Redis is reached and its streams are kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from shoal.errors import BadRequest

PORT = 6379
_SCHEMES = ("", "redis", "rediss", "valkey", "valkeys")


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """What users of Redis set beside its addresses. Times are seconds.

    A function for the password is called at every connection, so that it can be rotated.
    """

    user: str = ""
    """An ACL's user; empty is Redis's own `default`. What the address says wins."""
    password: str | Callable[[], str] = field(default="", repr=False)
    name: str = "shoal"
    """What the connections are called in CLIENT LIST."""
    timeout: float = 5.0
    """For a server to be connected to, and for it to answer."""
    patience: float = 5.0
    """How long what needs a connection waits for one that broke to come back."""
    ping: float = 5.0
    """Between two questions whether the server still answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamSettings:
    """How the streams are kept. Times are seconds."""

    prefix: str = "shoal:"
    """What the key of a stream begins with; the topic follows."""
    length: int = 100_000
    """About how many events a stream keeps, read or not: older ones are trimmed away."""
    min_idle: float = 30.0
    """How long an event waits for a consumer that died, until another takes it over."""
    forget: float = 600.0
    """After what silence a consumer counts as dead, and is removed."""
    consumer: str = ""
    """This process's name in the groups; one that stays the same when it is started again, and
    that no other process has, gets back at once what it held. Made up if empty."""
    grace: float = 30.0
    """How long deliveries that run may take when they are unsubscribed."""

    def __post_init__(self) -> None:
        if self.length < 1 or self.min_idle <= 0 or self.forget < 3 * self.min_idle:
            raise ValueError("streams need room for an event, and forget three times min_idle")


@dataclass(frozen=True, slots=True)
class Server:
    """One address."""

    host: str
    port: int
    database: int
    user: str
    password: str = field(repr=False)
    secure: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def servers(address: str, id: str) -> list[Server]:
    """Return the servers of `user:password@host:port,host:port/database`; empty is 127.0.0.1:6379.

    The user and password of one address, and its database, hold for those that have none. Each
    may begin with `redis://`, or `rediss://` for TLS. Raises BadRequest, which shows no password.
    """
    found: list[Server] = []
    for number, text in enumerate(address.split(",") if address else ["127.0.0.1"], 1):
        try:
            found.append(_server(text.strip()))
        except ValueError:
            raise BadRequest(
                f"address {number} of Redis is not of the form [rediss://][user:password@]"
                "host[:port][/database]",
                id=id,
            ) from None
    known = next((one for one in found if one.password), found[0])
    database = max(one.database for one in found)
    secure = any(one.secure for one in found)
    return [
        Server(
            one.host,
            one.port,
            database,
            one.user if one.password else known.user,
            one.password or known.password,
            secure,
        )
        for one in found
    ]


def _server(text: str) -> Server:
    url = urlsplit(text if "://" in text else f"//{text}")
    if url.scheme not in _SCHEMES or not url.hostname or url.query or url.fragment:
        raise ValueError("no address of Redis")
    return Server(
        url.hostname,
        PORT if url.port is None else url.port,
        int(url.path.strip("/") or 0),
        unquote(url.username or ""),
        unquote(url.password or ""),
        url.scheme in ("rediss", "valkeys"),
    )
