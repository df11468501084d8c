"""Package tls is the one setting that secures transport, registry, broker and gateway."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger(__name__)

RENEWAL = 1.0  # seconds for which files that were looked at count as unchanged
PATIENCE = 1.0  # seconds a handshake waits for a disk that does not answer


class TlsError(Exception):
    """A certificate or key cannot be used; the sentence names the file and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tls:
    """Which certificate to show and whom to trust; paths are files in PEM form.

    Peers are verified unless told otherwise, against `ca_file`, or the system's authorities
    without one. Raises TlsError for settings that contradict each other.
    """

    cert_file: str = ""
    """The certificate and its intermediates; a server needs one, a client shows it if asked."""
    key_file: str = ""
    """The certificate's private key; empty if it is in `cert_file` too."""
    key_password: str = field(default="", repr=False)
    ca_file: str = ""
    """The authorities that peers' certificates must come from."""
    verify: bool = True
    """Whether a client verifies the server."""
    check_hostname: bool = True
    """Whether a server's certificate must also name the host or IP address that was dialled."""
    client_auth: bool = False
    """Whether a server asks its clients for a certificate from `ca_file` (mutual TLS)."""

    def __post_init__(self) -> None:
        if self.key_file and not self.cert_file:
            raise TlsError(f"the TLS key {self.key_file!r} has no certificate: set tls_cert_file")
        if self.client_auth and not self.ca_file:
            raise TlsError("tls_client_auth needs the authority of the clients: set tls_ca_file")

    def client_context(self, alpn: Sequence[str] = ("http/1.1",)) -> ssl.SSLContext:
        """Return what a client connects with; raises TlsError for a file that cannot be used."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        else:
            context.check_hostname = self.check_hostname
            self._trust(context)
        if self.cert_file:
            self._identify(context)
        return _finished(context, alpn)

    def server_context(self, alpn: Sequence[str] = ("http/1.1",)) -> ssl.SSLContext:
        """Return what a server listens with; raises TlsError for a file that cannot be used."""
        if not self.cert_file:
            raise TlsError(
                "a server with TLS needs a certificate: set tls_cert_file and tls_key_file"
            )
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._identify(context)
        if self.client_auth:
            context.verify_mode = ssl.CERT_REQUIRED
            self._trust(context)
        return _finished(context, alpn)

    def _identify(self, context: ssl.SSLContext) -> None:
        key_file = self.key_file or self.cert_file
        _read(self.cert_file, "certificate")
        key = _read(key_file, "key")
        try:
            # A function, since OpenSSL asks the terminal when it gets none for an encrypted key.
            context.load_cert_chain(self.cert_file, key_file, lambda: self.key_password)
        except (ssl.SSLError, ValueError) as error:  # ValueError: a password beyond 1023 bytes
            if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
                why = f"the key {key_file!r} does not belong to the certificate {self.cert_file!r}"
            elif b"ENCRYPTED" in key:  # OpenSSL gives no reason, PEM says it in its own header
                why = f"the key {key_file!r} is encrypted and tls_key_password does not open it"
            else:
                why = f"{self.cert_file!r} and {key_file!r} hold no PEM certificate and its key"
            raise TlsError(f"no TLS: {why}") from error

    def _trust(self, context: ssl.SSLContext) -> None:
        if not self.ca_file:
            context.load_default_certs()
            return
        _read(self.ca_file, "authority")
        try:
            context.load_verify_locations(self.ca_file)
        except ssl.SSLError as error:
            raise TlsError(f"the TLS authority {self.ca_file!r} is no PEM certificate") from error


class LiveContext:
    """A context that is made anew once the files it was made from have changed.

    A certificate is renewed by replacing its files, or the symlink to them. They are looked at
    when a connection is made, in a thread, at most once a second; connections that stand go on.
    New files that cannot be used are logged, and the old certificate stays.
    """

    def __init__(self, tls: Tls, make: Callable[[], ssl.SSLContext]) -> None:
        """Make the first context with `make`; raises TlsError as that does."""
        self._files = tuple(path for path in (tls.cert_file, tls.key_file, tls.ca_file) if path)
        self._make = make
        self._state = _state(self._files)
        self._context = make()
        self._looked = -RENEWAL
        self._looking: asyncio.Future[None] | None = None

    def __repr__(self) -> str:
        return f"LiveContext({', '.join(self._files)})"

    async def current(self) -> ssl.SSLContext:
        """Return the context for the next handshake. Never raises."""
        if self._files:
            loop = asyncio.get_running_loop()
            now, looking = loop.time(), self._looking
            if looking is not None and looking.get_loop() is not loop:
                looking = None  # one that was closed, or another that looks for itself
            if looking is None and not 0 <= now - self._looked < RENEWAL:
                self._looked = now
                looking = self._looking = loop.run_in_executor(None, self._renew)
                looking.add_done_callback(self._seen)
            if looking is not None:
                await asyncio.wait({looking}, timeout=PATIENCE)
        return self._context

    def _seen(self, looking: asyncio.Future[None]) -> None:
        if self._looking is looking:
            self._looking = None
        if not looking.cancelled() and (error := looking.exception()) is not None:
            logger.error("the TLS certificates cannot be renewed", exc_info=error)

    def _renew(self) -> None:
        state = _state(self._files)
        if state == self._state:
            return
        try:
            try:
                context = self._make()
            except TlsError:
                again = _state(self._files)
                if again == state:
                    raise
                state, context = again, self._make()  # in the middle of being replaced
        except TlsError as error:
            logger.error("%s; what was read before stays in use", error)
        else:
            self._context = context
            logger.info("new TLS certificates are in use: %s", ", ".join(self._files))
        self._state = state


def _state(files: Sequence[str]) -> list[tuple[int, ...]]:
    """Return what differs once a file, or what its path leads to, has been replaced."""
    found: list[tuple[int, ...]] = []
    for path in files:
        try:
            status = os.stat(path)
        except OSError:
            found.append(())
        else:
            found.append((status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size))
    return found


def _finished(context: ssl.SSLContext, alpn: Sequence[str]) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if alpn:
        context.set_alpn_protocols(list(alpn))
    return context


def _read(path: str, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        reason = error.strerror or str(error)
        raise TlsError(f"cannot read the TLS {what} {path!r}: {reason}") from error
