"""Module _consul_settings is what can be set of Consul, by code, address and environment."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, unquote

from shoal.errors import BadRequest, Unavailable
from shoal.registry._records import join_address, split_address
from shoal.tls import Tls, TlsError

PORT = 8500

Consistency = Literal["stale", "default", "consistent"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TcpCheck:
    """Consul itself connects to the node every `interval` seconds."""

    interval: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpCheck:
    """Consul itself asks `url` every `interval` seconds; `{host}` in it is the node's host."""

    url: str
    interval: float = 10.0
    timeout: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsulSettings:
    """How agents are asked. Times are seconds; what is empty is the agent's own default."""

    token: str = field(default="", repr=False)
    """The ACL token."""
    token_file: str = ""
    """A file with the ACL token, read for every request: it may change at any time."""
    user: str = ""
    password: str = field(default="", repr=False)
    """Of HTTP basic authentication, where a proxy before the agents wants it."""
    datacenter: str = ""
    """Where nodes are looked for; they are registered in the datacenter of the agent."""
    namespace: str = ""
    partition: str = ""
    consistency: Consistency = "stale"
    """Which server may answer: any one (as Go Micro asks), the leader, a leader that makes sure."""
    check: TcpCheck | HttpCheck | None = None
    """What tells Consul that a node lives, instead of the registrations refreshed in time."""
    connect: bool = False
    """Register and find services of the mesh (Consul Connect) that do TLS themselves."""
    timeout: float = 5.0
    """For one answer of one agent."""
    wait: float = 15.0
    """For how long a watch asks; an agent that hangs is noticed after `wait` and `timeout`."""

    def __post_init__(self) -> None:
        if self.consistency not in get_args(Consistency):
            known = ", ".join(get_args(Consistency))
            raise BadRequest(f"consul: the consistency {self.consistency!r} is none of {known}")

    def secret(self) -> str:
        """Return the token to send now; raises Unavailable if its file cannot be read."""
        if not self.token_file:
            return self.token
        try:
            return Path(self.token_file).read_text(encoding="ascii").strip()
        except (OSError, UnicodeError) as error:
            problem = f"consul: the token in {self.token_file!r} cannot be read"
            raise Unavailable(f"{problem}: {error}") from None

    def scope(self) -> dict[str, str]:
        """Return the parameters that say in which part of Consul something is."""
        scope = {"ns": self.namespace, "partition": self.partition}
        return {name: value for name, value in scope.items() if value}

    def reading(self) -> dict[str, str]:
        """Return the parameters of questions that Consul's servers answer."""
        parameters = self.scope()
        if self.datacenter:
            parameters["dc"] = self.datacenter
        if self.consistency != "default":
            parameters[self.consistency] = ""
        return parameters


_TEXTS = ("token", "token_file", "datacenter", "namespace", "partition", "consistency")
_NUMBERS = ("timeout", "wait")
_VARIABLES = {
    "CONSUL_HTTP_TOKEN": "token",
    "CONSUL_HTTP_TOKEN_FILE": "token_file",
    "CONSUL_NAMESPACE": "namespace",
    "CONSUL_PARTITION": "partition",
}


def read_address(
    address: str, settings: ConsulSettings, environ: Mapping[str, str]
) -> tuple[list[str], ConsulSettings]:
    """Return the agents of `user:password@host:port,host?name=value`, and all that is set.

    What the code sets wins over the address, and that over the variables of Consul's own tools
    (as with Go Micro, which leaves them to Consul's library). Raises BadRequest.
    """
    address = address or environ.get("CONSUL_HTTP_ADDR", "")
    before, _, query = address.partition("?")
    before = before.replace("https://", "").replace("http://", "")
    login, _, hosts = before.rpartition("@")
    found: dict[str, Any] = {
        name: environ[variable] for variable, name in _VARIABLES.items() if environ.get(variable)
    }
    login = login or environ.get("CONSUL_HTTP_AUTH", "")
    if login:
        user, _, password = login.partition(":")
        found |= {"user": unquote(user), "password": unquote(password)}
    found |= _parameters(query)
    default = ConsulSettings()
    found = {
        name: value
        for name, value in found.items()
        if getattr(settings, name) == getattr(default, name)
    }
    agents = [_agent(host) for host in hosts.rstrip("/").split(",") if host.strip()]
    return agents or [f"127.0.0.1:{PORT}"], replace(settings, **found)


def address_tls(address: str, environ: Mapping[str, str]) -> Tls | None:
    """Return the TLS that `https://` or the variables of Consul's own tools ask for, if any."""
    secure = environ.get("CONSUL_HTTP_SSL", "").lower() in ("1", "t", "true")
    if not secure and "https://" not in (address or environ.get("CONSUL_HTTP_ADDR", "")):
        return None
    return Tls(
        cert_file=environ.get("CONSUL_CLIENT_CERT", ""),
        key_file=environ.get("CONSUL_CLIENT_KEY", ""),
        ca_file=environ.get("CONSUL_CACERT", ""),
        verify=environ.get("CONSUL_HTTP_SSL_VERIFY", "").lower() not in ("0", "f", "false"),
    )


def ssl_context(tls: Tls | None) -> ssl.SSLContext | None:
    """Return what agents are connected with; raises Unavailable for files of no use."""
    try:
        return None if tls is None else tls.client_context()
    except TlsError as error:
        raise Unavailable(f"consul: {error}") from error


def _parameters(query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in _TEXTS:
            found[name] = value
        elif name in _NUMBERS:
            found[name] = _seconds(name, value)
        elif name == "tcp_check":
            found["check"] = TcpCheck(interval=_seconds(name, value))
        elif name == "http_check":
            found["check"] = HttpCheck(url=value)
        elif name == "connect":
            found[name] = value.lower() in ("", "1", "true")
        else:
            known = ", ".join((*_TEXTS, *_NUMBERS, "tcp_check", "http_check", "connect"))
            raise BadRequest(f"consul: the address has no setting {name!r}: known are {known}")
    return found


def _seconds(name: str, value: str) -> float:
    try:
        seconds = float(value.removesuffix("s"))
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < 86400:
        raise BadRequest(f"consul: {name} must be a number of seconds, not {value!r}")
    return seconds


def _agent(text: str) -> str:
    text = text.strip()
    bare = text.strip("[]")
    if ":" not in text or text.endswith("]") or (bare.count(":") > 1 and text[0] != "["):
        text = join_address(bare, PORT)
    return join_address(*split_address(text))
