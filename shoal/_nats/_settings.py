"""Module _settings is how NATS is reached: addresses, who one is, and how long to wait."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

from shoal.errors import BadRequest

PORT = 4222


@dataclass(frozen=True, slots=True, kw_only=True)
class NatsSettings:
    """What users of NATS set beside its addresses. Times are seconds.

    Files are read, and functions called, at every connection, so that credentials can be rotated.
    """

    user: str = ""
    password: str | Callable[[], str] = field(default="", repr=False)
    token: str | Callable[[], str] = field(default="", repr=False)
    credentials: str = ""
    """Path of a `.creds` file: a JWT and its seed."""
    nkey_file: str = ""
    """Path of a file with an nkey seed."""
    name: str = "shoal"
    """What the connection is called in the server's monitoring."""
    timeout: float = 5.0
    """For a server to be connected to, and for it to answer."""
    patience: float = 5.0
    """How long what needs a connection waits for one that broke to come back."""
    ping: float = 5.0
    """Between two questions whether the server still answers."""
    inbox: str = "_INBOX"
    """What the subjects of replies begin with, for accounts that may not use the usual one."""


@dataclass(frozen=True, slots=True)
class Server:
    """One address, with what it says about the user."""

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)
    secure: bool = False

    @property
    def where(self) -> str:
        """The address as people write it, without any secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address as nats-py takes it; who one is goes another way."""
        return f"{'tls' if self.secure else 'nats'}://{self.where}"


def servers(address: str, id: str) -> list[Server]:
    """Return the servers of `user:password@host:port,host`, each with or without `nats://`.

    A user without password is a token. Raises BadRequest for what is no address.
    """
    parts = (address or "127.0.0.1").split(",")
    return [_server(part.strip(), id) for part in parts if part.strip()]


def _server(text: str, id: str) -> Server:
    shown = text.rpartition("@")[2]
    if "://" not in text:
        text = f"nats://{text}"
    try:
        url = urlsplit(text)
        host, port = url.hostname, url.port or PORT
    except ValueError:
        host, port = None, 0
        url = urlsplit("")
    if not host or url.scheme not in ("nats", "tls") or url.path.strip("/") or not shown.isascii():
        raise BadRequest(
            f"{shown!r} is no address of NATS: write host:port or user:password@host", id=id
        )
    user, password = unquote(url.username or ""), unquote(url.password or "")
    return Server(host, port, user, password, url.scheme == "tls")
