"""Module _etcd_settings is what can be set of etcd, by code, address and environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args
from urllib.parse import parse_qsl, unquote

from shoal.errors import BadRequest, Unavailable
from shoal.registry._records import join_address, split_address

PORT = 2379
PREFIX = "/micro/registry/"  # Go Micro v1.12 and later
LEGACY_PREFIX = "/micro-registry/"  # the plugins etcd (v2) and etcdv3 before

Consistency = Literal["serializable", "linearizable"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EtcdSettings:
    """How etcd is asked. Times are seconds."""

    user: str = ""
    password: str = field(default="", repr=False)
    password_file: str = ""
    """A file with the password, read for every login: it may change at any time."""
    prefix: str = ""
    """What the keys begin with; if empty, what Go Micro uses."""
    also: tuple[str, ...] = ()
    """What keys begin with that are read too, but never written."""
    consistency: Consistency = "serializable"
    """Whether any member may answer look-ups (as Go Micro asks), or a majority has to agree."""
    timeout: float = 5.0
    """For one question, all members that are tried in turn included."""

    def __post_init__(self) -> None:
        if self.consistency not in get_args(Consistency):
            known = ", ".join(get_args(Consistency))
            raise BadRequest(f"etcd: the consistency {self.consistency!r} is none of {known}")
        if not 0 < self.timeout < 86400:
            raise BadRequest(f"etcd: the timeout must be a number of seconds, not {self.timeout}")

    def secret(self) -> str:
        """Return the password to log in with now; raises Unavailable if its file is unreadable."""
        if not self.password_file:
            return self.password
        try:
            return Path(self.password_file).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError) as error:
            problem = f"etcd: the password in {self.password_file!r} cannot be read"
            raise Unavailable(f"{problem}: {error}") from None

    def prefixes(self) -> list[str]:
        """Return what keys may begin with, slashes at both ends, that of written ones first."""
        found = (
            f"/{prefix.strip('/')}/".replace("//", "/") for prefix in (self.prefix, *self.also)
        )
        return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask: the members' addresses, and whether they were called https."""

    members: tuple[str, ...]
    secure: bool
    settings: EtcdSettings


def read_address(
    address: str, settings: EtcdSettings | None, prefix: str, environ: Mapping[str, str]
) -> Target:
    """Return whom `user:password@host:port,host/prefix?name=value` means, and all that is set.

    What the code sets wins over the address, and that over ETCD_USERNAME and ETCD_PASSWORD (as in
    Go Micro). Raises BadRequest.
    """
    before, _, query = address.partition("?")
    secure = "https://" in before
    before = before.replace("https://", "").replace("http://", "")
    before, slash, path = before.partition("/")
    login, _, hosts = before.rpartition("@")
    found: dict[str, Any] = {}
    if environ.get("ETCD_USERNAME") and environ.get("ETCD_PASSWORD"):
        found = {"user": environ["ETCD_USERNAME"], "password": environ["ETCD_PASSWORD"]}
    if login:
        user, _, password = login.partition(":")
        found |= {"user": unquote(user), "password": unquote(password)}
    if slash and path.strip("/"):
        found["prefix"] = unquote(path)
    found |= _parameters(query)
    chosen = settings or EtcdSettings()
    default = EtcdSettings()
    found = {
        name: value
        for name, value in found.items()
        if getattr(chosen, name) == getattr(default, name)
    }
    chosen = replace(chosen, **found)
    if not chosen.prefix.strip("/"):
        chosen = replace(chosen, prefix=prefix)
    members = tuple(_member(host) for host in hosts.split(",") if host.strip())
    return Target(members or (f"127.0.0.1:{PORT}",), secure, chosen)


def _parameters(query: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "also":
            found[name] = (*found.get(name, ()), value)
        elif name == "timeout":
            try:
                found[name] = float(value.removesuffix("s"))
            except ValueError:
                problem = f"etcd: timeout must be a number of seconds, not {value!r}"
                raise BadRequest(problem) from None
        elif name in ("consistency", "password_file"):
            found[name] = value
        else:
            known = "also, consistency, password_file, timeout"
            raise BadRequest(f"etcd: the address has no setting {name!r}: known are {known}")
    return found


def _member(text: str) -> str:
    text = text.strip()
    bare = text.strip("[]")
    if ":" not in text or text.endswith("]") or (bare.count(":") > 1 and text[0] != "["):
        return join_address(*split_address(join_address(bare, PORT)))
    return join_address(*split_address(text))
