"""Module _etcd_http asks the members of an etcd cluster over HTTP, one after the other."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from shoal._reasons import causes, reason
from shoal.errors import Unavailable
from shoal.tls import Tls, TlsError

MAX_REPLY = 32 << 20  # bytes of one answer, and of one line of a stream
_AT_ONCE = 32  # questions under way
_FAILURES = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError, UnicodeError)
_OVERLOADED = frozenset({500, 502, 503, 504})  # another member may know better

# A peer that is gone without a word is noticed by the system within half a minute.
_KEEP_ALIVE = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
if hasattr(socket, "TCP_KEEPIDLE"):  # Linux has it, macOS has not
    _KEEP_ALIVE += [
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    ]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a member has answered."""

    member: str
    status: int
    headers: Mapping[str, str]
    body: bytes


class EtcdHttp:
    """The members of a cluster: the one that answered last is asked first."""

    def __init__(self, members: Sequence[str], tls: Tls | None, timeout: float) -> None:
        self.timeout = timeout
        self._members = list(members)
        self._tls = tls
        self._connections: httpx.AsyncHTTPTransport | None = None
        self._files: object = None  # of the certificates, as they were when they were read
        self._outdated = False  # there are new ones
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def __repr__(self) -> str:
        return f"EtcdHttp({','.join(self._members)!r})"

    @property
    def member(self) -> str:
        """The member to ask next."""
        return self._members[0]

    def avoid(self, member: str) -> None:
        """Ask another member next."""
        if self.member == member:
            self._members.append(self._members.pop(0))

    async def send(
        self,
        method: str,
        path: str,
        *,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
        member: str = "",
    ) -> Reply:
        """Return the answer of one member, or of the first that has one.

        What is sent may arrive twice. Raises Unavailable when nobody answers in time.
        """
        tries = 1 if member else len(self._members) + 1  # a connection kept may just have ended
        problem: Unavailable | None = None
        for _ in range(tries):
            asked = member or self.member
            try:
                async with self._turns, asyncio.timeout(self.timeout / tries):
                    reply = await self._exchange(asked, method, path, content, headers or {})
            except _FAILURES as error:
                problem = self._unavailable(asked, error, self.timeout / tries)
            else:
                if reply.status not in _OVERLOADED or tries == 1:
                    return reply
                said = reply.body[:200].decode(errors="replace").strip()
                problem = Unavailable(f"etcd at {asked} answers {reply.status}: {said}")
            self.avoid(asked)
        assert problem is not None
        raise problem

    @contextlib.asynccontextmanager
    async def open(
        self,
        member: str,
        method: str,
        path: str,
        *,
        content: bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> AsyncIterator[httpx.Response]:
        """Give an answer that goes on and on; read it with `lines`. Raises Unavailable."""
        try:
            async with asyncio.timeout(self.timeout):
                response = await self._begin(member, method, path, content, headers)
        except _FAILURES as error:
            raise self._unavailable(member, error, self.timeout) from error
        try:
            yield response
        except _FAILURES as error:
            raise self._unavailable(member, error, self.timeout) from error
        finally:
            await response.aclose()

    async def lines(self, response: httpx.Response) -> AsyncIterator[bytes]:
        """Yield each line as soon as it is complete; raises Unavailable for one without end."""
        rest = bytearray()
        async for chunk in response.aiter_raw():
            rest += chunk
            if len(rest) > MAX_REPLY:
                raise Unavailable(f"etcd sends a line of more than {MAX_REPLY} bytes")
            if b"\n" in chunk:
                *complete, rest = rest.split(b"\n")
                for line in complete:
                    if line.strip():
                        yield bytes(line)
        if rest.strip():
            yield bytes(rest)

    async def close(self) -> None:
        """End all connections; they are made again when something is asked."""
        connections, self._connections = self._connections, None
        self._turns = asyncio.Semaphore(_AT_ONCE)
        if connections is not None:
            await connections.aclose()

    async def _exchange(
        self, member: str, method: str, path: str, content: bytes, headers: Mapping[str, str]
    ) -> Reply:
        response, body = await self._begin(member, method, path, content, headers), bytearray()
        try:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_REPLY:
                    raise TooMuch(f"etcd at {member} answers more than {MAX_REPLY} bytes")
        finally:
            await response.aclose()
        return Reply(member, response.status_code, response.headers, bytes(body))

    async def _begin(
        self,
        member: str,
        method: str,
        path: str,
        content: bytes,
        headers: Mapping[str, str] | None,
    ) -> httpx.Response:
        """Return an answer whose head is read; the caller closes it.

        Not by a client of httpx: it would write a log line for every question.
        """
        url = f"{'https' if self._tls else 'http'}://{member}{path}"
        fields = {"accept-encoding": "identity", **(headers or {})}
        request = httpx.Request(method, url, content=content, headers=fields)
        connections = await self._connected()
        return await connections.handle_async_request(request)

    async def _connected(self) -> httpx.AsyncHTTPTransport:
        if self._outdated:
            self._outdated = False
            await self.close()
        if self._connections is None:
            try:
                # Without TLS this context trusts nobody, and is not used either.
                context = (
                    self._tls.client_context()
                    if self._tls
                    else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                )
            except TlsError as error:
                raise Unavailable(f"etcd: {error}") from error
            self._files = _changes(self._tls)
            self._connections = httpx.AsyncHTTPTransport(
                verify=context,
                trust_env=False,
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=_AT_ONCE),
                socket_options=_KEEP_ALIVE,
            )
        return self._connections

    def _unavailable(self, member: str, error: Exception, seconds: float) -> Unavailable:
        if self._tls and self._files != _changes(self._tls):
            self._outdated = True  # the next connection shows and trusts the new certificates
        if isinstance(error, TimeoutError):
            return Unavailable(f"etcd at {member} has not answered within {seconds:g} s")
        why, (*_, first) = reason(error), causes(error)
        if self._tls and not self._tls.cert_file and isinstance(first, ConnectionError):
            why += "; it may want a certificate: set tls_cert_file"
        return Unavailable(f"etcd at {member} cannot be asked: {why}")


class TooMuch(Unavailable):
    """An answer is larger than anything that is wanted."""


def _changes(tls: Tls | None) -> object:
    """Return what changes when a file of the certificates does."""
    found = []
    for path in (tls.cert_file, tls.key_file, tls.ca_file) if tls else ():
        with contextlib.suppress(OSError):
            status = Path(path).stat()
            found.append((path, status.st_mtime_ns, status.st_ino))
    return found
