"""Module _settings is how RabbitMQ is reached: addresses, who one is, and how long to wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal
from urllib.parse import unquote, urlsplit

from shoal.errors import BadRequest

PORT, SECURE_PORT = 5672, 5671


@dataclass(frozen=True, slots=True, kw_only=True)
class RabbitSettings:
    """What users of RabbitMQ set beside its addresses. Times are seconds.

    A function for the password is called at every connection, so that it can be rotated.
    """

    user: str = "guest"
    """What the address says wins."""
    password: str | Callable[[], str] = field(default="guest", repr=False)
    vhost: str = "/"
    exchange: str = "micro"
    """The exchange that everything goes through; Go Micro's is called so."""
    exchange_type: Literal["topic", "direct", "fanout"] = "topic"
    durable_exchange: bool | None = None
    """Whether the exchange, and what queues are bound to it, outlives the server. All who use it
    must agree; None is as durable as the queues are, since what is published before a queue is
    bound again is lost to it."""
    prefetch: int = 64
    """Events a subscription holds that were not acknowledged yet."""
    arguments: Mapping[str, str | int | bool] = field(default_factory=dict)
    """What queues with a name are declared with: `{"x-queue-type": "quorum"}`."""
    name: str = "shoal"
    """What the connection is called in the server's monitoring."""
    timeout: float = 5.0
    """For a server to be connected to, and for it to answer."""
    patience: float = 5.0
    """How long what needs a connection waits for one that broke to come back."""
    heartbeat: int = 5
    """Between two signs of life; after twice as long without one the connection is given up."""

    def __post_init__(self) -> None:
        if self.prefetch < 1 or self.heartbeat < 1:
            raise ValueError("RabbitMQ needs a prefetch and a heartbeat of at least 1")
        if self.exchange_type not in ("topic", "direct", "fanout"):
            raise ValueError(f"{self.exchange_type!r} is no exchange type: topic, direct or fanout")


@dataclass(frozen=True, slots=True)
class Server:
    """One address, with what it says about the user; empty is left to the settings."""

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)
    vhost: str = ""
    secure: bool = False

    @property
    def where(self) -> str:
        """The address as people write it, without any secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


def servers(address: str, *, secure: bool = False) -> list[Server]:
    """Return the servers of `user:password@host:port/vhost,host`, each with or without `amqp://`.

    The user and the vhost of one address hold for those that have none. Raises BadRequest for
    what is no address; no password is in it.
    """
    parts = [part.strip() for part in address.split(",")] if address else ["127.0.0.1"]
    found = [_server(part, place, secure) for place, part in enumerate(parts, 1)]
    known = next((one for one in found if one.user), found[0])
    vhost = next((one.vhost for one in found if one.vhost), "")
    return [
        replace(
            one,
            user=one.user or known.user,
            password=one.password if one.user else known.password,
            vhost=one.vhost or vhost,
        )
        for one in found
    ]


def _server(text: str, place: int, secure: bool) -> Server:
    try:
        url = urlsplit(text if "://" in text else f"amqp://{text}")
        secure = secure or url.scheme == "amqps"
        host, port = url.hostname, url.port or (SECURE_PORT if secure else PORT)
    except ValueError:
        host, port = None, 0
        url = urlsplit("")
    if not host or not text.isascii() or url.scheme not in ("amqp", "amqps") or url.query:
        raise BadRequest(
            f"address {place} of RabbitMQ is not of the form [amqps://][user:password@]host[:port]"
            "[/vhost], with what is special in them percent-encoded"
        )
    user, password = unquote(url.username or ""), unquote(url.password or "")
    return Server(host, port, user, password, unquote(url.path[1:]), secure)
