"""Module _dns_nameservers asks nameservers, and reads what they answer beside the answer."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import dns.asyncbackend
import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

from shoal._reasons import reason
from shoal.errors import Unavailable
from shoal.registry._records import join_address

Kind = Literal["A", "AAAA", "PTR", "SRV", "TXT"]

_AT_ONCE = 16  # questions under way
_AGAIN = 0.05  # seconds

# The name does not exist, or has no records of this kind, or cannot exist.
_NOTHING = (
    dns.resolver.NXDOMAIN,
    dns.resolver.NoAnswer,
    dns.resolver.YXDOMAIN,
    dns.name.LabelTooLong,
    dns.name.EmptyLabel,
    dns.name.NameTooLong,
    dns.name.BadEscape,
    dns.name.IDNAException,
    UnicodeError,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The records of a name, for how many seconds they hold, and others that came along."""

    records: tuple[Any, ...]
    ttl: float
    beside: tuple[Any, ...] = ()

    def also(self, name: dns.name.Name, kind: Kind) -> tuple[Any, ...]:
        """Return records of another name that came along, none if they have to be asked for."""
        wanted = dns.rdatatype.from_text(kind)
        return tuple(
            record
            for rrset in self.beside
            if rrset.name == name and rrset.rdtype == wanted
            for record in rrset
        )


class Nameservers:
    """Some nameservers, or those of the system, of which one after the other is asked."""

    def __init__(
        self, servers: Sequence[tuple[str, int]], *, domain: str, timeout: float, tcp: bool
    ) -> None:
        self._servers = list(servers)
        self.domain = domain
        self._timeout = timeout
        self._tcp = tcp
        self._resolver: dns.asyncresolver.Resolver | None = None
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def __str__(self) -> str:
        servers = ",".join(join_address(*server) for server in self._servers)
        return f"{servers}/{self.domain}"

    async def below(self, name: str, kind: Kind) -> Answer | None:
        """Return the records of a name below the domain, None if there are none.

        Without a domain it is looked for as the system does. Raises Unavailable.
        """
        if self.domain:
            return await self.ask(f"{name}.{self.domain}", kind)
        return await self.ask(name, kind, search=not name.endswith("."))

    async def ask(
        self, name: str | dns.name.Name, kind: Kind, *, search: bool = False
    ) -> Answer | None:
        """Return the records of a name, None if there are none; raises Unavailable."""
        try:
            async with self._turns, asyncio.timeout(self._timeout):
                if isinstance(name, str):
                    plain = name.replace("\\", "\\\\")  # escapes are not what services have
                    name = dns.name.from_text(plain, None if search else dns.name.root)
                answer = await self._resolve(name, kind, search)
        except _NOTHING:
            return None
        except TimeoutError as error:
            self._resolver = None
            raise Unavailable(f"dns: {self} has not told of {name} in time") from error
        except (dns.exception.DNSException, OSError, EOFError) as error:
            self._resolver = None
            raise Unavailable(f"dns: {self} cannot tell of {name}: {_said(error)}") from error
        rrset: Any = answer.rrset
        beside = (*answer.response.answer, *answer.response.additional)
        return Answer(tuple(rrset), float(rrset.ttl), beside)

    async def _resolve(self, name: dns.name.Name, kind: Kind, search: bool) -> dns.resolver.Answer:
        backend = dns.asyncbackend.get_backend("asyncio")
        settings: dict[str, Any] = {"tcp": self._tcp, "search": search, "backend": backend}
        settings["lifetime"] = self._timeout
        try:
            return await (await self._open()).resolve(name, kind, **settings)
        except dns.resolver.NoNameservers:
            # One connection was reset, and the resolver gives up: nameservers do that when they
            # are busy or begin anew, and a second one is taken.
            self._resolver = None
        await asyncio.sleep(_AGAIN)
        return await (await self._open()).resolve(name, kind, **settings)

    async def addresses(self, name: dns.name.Name, near: Answer) -> list[str]:
        """Return the IPv4 addresses of a host, or its IPv6 ones; raises Unavailable."""
        kinds: tuple[Kind, ...] = ("A", "AAAA")
        for kind in kinds:
            if found := near.also(name, kind):
                return [record.address for record in found]
        for kind in kinds:
            if answer := await self.ask(name, kind):
                return [record.address for record in answer.records]
        return []

    def reset(self) -> None:
        """Begin anew, perhaps on another event loop."""
        self._resolver = None
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def _open(self) -> dns.asyncresolver.Resolver:
        """Return what asks the nameservers, made anew after it has failed: addresses change."""
        if self._resolver is None:
            resolver = dns.asyncresolver.Resolver(configure=not self._servers)
            if self._servers:
                resolver.nameservers = [
                    dns.nameserver.Do53Nameserver(await _address(host), port)
                    for host, port in self._servers
                ]
            self._resolver = resolver
        return self._resolver


async def _address(host: str) -> str:
    """Return the address of a nameserver that may be given by its name."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return str(found[0][4][0])


def _said(error: Exception) -> str:
    if isinstance(error, dns.resolver.NoNameservers):
        # Of each attempt the server, how it was asked, and an exception or an answer's code.
        answers = [one[3] for one in error.kwargs.get("errors", ())]
        texts = (reason(one) if isinstance(one, Exception) else str(one) for one in answers)
        return "; ".join(dict.fromkeys(texts)) or "no answer"
    return " ".join(reason(error).split())[:300]
