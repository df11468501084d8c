"""Module _jwks fetches the keys that an issuer signs with (JWKS, RFC 7517)."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import httptools

from shoal.auth._renewed import Fetched, Renewed
from shoal.errors import Unavailable
from shoal.tls import LiveContext, Tls

FRESH = 300.0  # seconds after which keys are fetched again
KEPT = 86400.0  # seconds for which they are used while they cannot be
PATIENCE = 5.0  # seconds for one answer
LARGEST = 1024 * 1024  # bytes of one
CHUNK = 65536

Loaded: TypeAlias = dict[str, Any]
"""Keys by their id, one without any by an empty text."""


class KeySet:
    """The keys behind an address. Raises ValueError for an address that others could answer."""

    def __init__(self, url: str, tls: Tls | None, load: Callable[[bytes], Loaded]) -> None:
        parts = urlsplit(url)
        if not parts.hostname or not (parts.scheme == "https" or _is_plain_loopback(url)):
            raise ValueError(f"keys come from https://, not from {url!r}: others could answer")
        if parts.username is not None:
            raise ValueError("the address of keys has no user name or password")
        self._url = url
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._request = _request(
            f"{parts.path or '/'}{'?' if parts.query else ''}{parts.query}", parts.netloc
        )
        self._tls = (tls or Tls()) if parts.scheme == "https" else None
        self._secure: LiveContext | None = None
        self._load = load
        self._keys = Renewed(f"the keys at {url}", self._fetch)
        self.current, self.newer = self._keys.current, self._keys.newer

    def __repr__(self) -> str:
        return repr(self._keys)

    async def _fetch(self) -> Fetched[Loaded]:
        try:
            async with asyncio.timeout(PATIENCE):
                status, body = await self._get()
        except TimeoutError:
            raise Unavailable(f"no answer within {PATIENCE:g} s") from None
        except (OSError, ssl.SSLError, httptools.HttpParserError) as error:
            raise Unavailable(str(error)) from error
        if status != 200:
            raise Unavailable(f"the answer is {status}")
        try:
            keys = self._load(body)
        except ValueError as error:
            raise Unavailable(str(error)) from error
        if not keys:
            raise Unavailable("there is no key that signs")
        return Fetched(keys, FRESH, KEPT)

    async def _get(self) -> tuple[int, bytes]:
        """Return status and body of one answer."""
        if self._tls is not None and self._secure is None:
            self._secure = LiveContext(self._tls, self._tls.client_context)
        context = await self._secure.current() if self._secure is not None else None
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=context)
        try:
            writer.write(self._request)
            answer = _Answer()
            parser = httptools.HttpResponseParser(answer)
            while not answer.complete and (data := await reader.read(CHUNK)):
                parser.feed_data(data)
            if not answer.complete and not answer.ends_with_connection:
                raise Unavailable("the answer is not whole")
            return parser.get_status_code(), bytes(answer.body)
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()


class _Answer:
    """Collects what the parser tells."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.complete = False
        self.ends_with_connection = False
        self._sized = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._sized |= name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        self.ends_with_connection = not self._sized

    def on_body(self, data: bytes) -> None:
        if len(self.body) + len(data) > LARGEST:
            raise Unavailable(f"the answer is over {LARGEST} bytes")
        self.body += data

    def on_message_complete(self) -> None:
        self.complete = True


def _request(target: str, host: str) -> bytes:
    lines = (
        f"GET {target} HTTP/1.1", f"Host: {host}", "User-Agent: shoal",
        "Accept: application/jwk-set+json, application/json", "Connection: close",
    )  # fmt: skip
    text = "\r\n".join(lines)
    if not text.isascii() or text.count("\r\n") != len(lines) - 1 or " " in target:
        raise ValueError("the address of keys has characters that no address has")
    return f"{text}\r\n\r\n".encode()


def _is_plain_loopback(url: str) -> bool:
    parts = urlsplit(url)
    host = parts.hostname or ""
    with suppress(ValueError):
        return parts.scheme == "http" and ipaddress.ip_address(host).is_loopback
    return parts.scheme == "http" and host == "localhost"
