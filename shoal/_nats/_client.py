"""Module _client makes and ends one connection of nats-py, and says in a sentence what failed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any

import nats.aio.client
import nats.errors
from nats.aio.msg import Msg as Msg

from shoal._nats._settings import NatsSettings, Server
from shoal._reasons import reason
from shoal.errors import Unavailable
from shoal.tls import Tls

OLDEST = (2, 2)  # the first with headers, and with word that nobody listens
NEVER = 10**9  # seconds
GRACE = 1.0  # seconds for what was written to go out before a connection is cut


class Client(nats.aio.client.Client):
    """A connection that breaks once: whoever owns it makes the next one."""

    secure = False

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        # nats-py would go on in plain text, and send the password in it.
        if self.secure and initial_connection and not info.get("tls_required"):
            raise nats.errors.SecureConnWantedError
        await super()._process_info(info, initial_connection)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        # nats-py writes it past what still waits to be written, so that the answer means nothing.
        self._pongs.append(future or asyncio.get_running_loop().create_future())
        await self._send_command(nats.aio.client.PING_PROTO)
        await self._flush_pending()

    async def _process_pong(self) -> None:
        # nats-py stops reading when nobody waits any more for an answer that comes.
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()


async def connect(
    server: Server, settings: NatsSettings, tls: Tls | None, on_error: Callable[[Exception], None]
) -> Client:
    """Return a connection to one server; raises Unavailable saying why there is none.

    `on_error` is told what goes wrong later, the end of the connection among it.
    """
    client = Client()
    client.secure = tls is not None or server.secure
    failures: list[Exception] = []
    stands = False  # nats-py tries twice, and tells what was wrong at first

    async def fail(error: Exception) -> None:
        failures.append(error)
        if stands:
            on_error(error)

    async def closed() -> None:
        if stands:
            on_error(nats.errors.ConnectionClosedError())

    task = asyncio.current_task()
    cancelled = task.cancelling() if task is not None else 0
    try:
        async with asyncio.timeout(2 * settings.timeout):
            await client.connect(
                server.url,
                error_cb=fail,
                closed_cb=closed,
                name=settings.name,
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                connect_timeout=settings.timeout,  # type: ignore[arg-type]  # any seconds will do
                flush_timeout=settings.timeout,
                ping_interval=NEVER,  # the owner asks itself
                inbox_prefix=settings.inbox,
                tls=(tls or Tls()).client_context(alpn=()) if client.secure else None,
                tls_hostname=server.host if client.secure else None,
                **_identity(server, settings),
            )
        stands = True
        if task is not None and task.cancelling() > cancelled:
            raise asyncio.CancelledError  # which Python 3.11's wait_for may have lost
        _check(client, server)
        _pace(client)
    except (OSError, TimeoutError, ValueError, nats.errors.Error) as error:
        await discard(client, graceful=False)
        cause = failures[0] if isinstance(error, nats.errors.NoServersError) and failures else error
        raise Unavailable(f"no connection to NATS: {sentence(server.where, cause)}") from cause
    except ModuleNotFoundError as error:
        await discard(client, graceful=False)
        raise Unavailable("nkeys and .creds files need 'nkeys': pip install nkeys") from error
    except BaseException:
        await discard(client, graceful=False)
        raise
    return client


def _identity(server: Server, settings: NatsSettings) -> dict[str, Any]:
    """Return who one is, in the words of nats-py; what an address says wins."""
    if server.user and server.password:
        return {"user": server.user, "password": server.password}
    if server.user:
        return {"token": server.user}
    said = {
        "user": settings.user,
        "password": settings.password,
        "token": settings.token,
        "user_credentials": settings.credentials,
        "nkeys_seed": settings.nkey_file,
    }
    return {name: value for name, value in said.items() if value}


def _check(client: Client, server: Server) -> None:
    if not client.is_connected:  # the server hung up in the middle of it
        raise client.last_error or nats.errors.UnexpectedEOF()
    version = client.connected_server_version
    if (version.major, version.minor) < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise Unavailable(f"{server.where} runs {version!r}: NATS {needed} or newer is needed")


def _pace(client: Client) -> None:
    """Let those who send wait for a server that does not read.

    In Python 3.12.0 to 3.12.7 and 3.13.0 `writelines`, which nats-py uses, tells nobody that its
    buffer is full (CVE-2024-12254).
    """
    transport = client._transport
    if transport is not None:
        write = transport.write

        def writelines(payload: list[bytes]) -> None:
            write(b"".join(payload))

        transport.writelines = writelines  # type: ignore[method-assign]  # that is what is meant


def sentence(where: str, error: Exception) -> str:
    """Return what went wrong at an address, for a person; no secret is in it."""
    text = str(error).removeprefix("nats: ").strip("' ") or type(error).__name__
    if isinstance(error, nats.errors.AuthorizationError) or "authorization" in text.lower():
        return f"{where} refuses these credentials"
    if isinstance(error, nats.errors.SecureConnWantedError):
        return f"{where} offers no TLS, which was asked for"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of {where} is not trusted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return f"{where} did not answer in time"
    if isinstance(error, nats.errors.UnexpectedEOF | nats.errors.ConnectionClosedError):
        return f"{where} closed the connection"
    if "INFO" in text or isinstance(error, ValueError):
        return f"what answers at {where} is no NATS server"
    if isinstance(error, OSError):
        return f"{where}: {reason(error)}"
    return f"{where}: {text}"


async def discard(client: Client, *, graceful: bool) -> None:
    """End a connection and its tasks; what was written still goes out if `graceful`."""
    closing = asyncio.get_running_loop().create_task(client.close())
    try:
        if graceful:
            await asyncio.wait({closing}, timeout=GRACE)
        _cut(client)
        await asyncio.wait({closing}, timeout=GRACE)
    finally:
        _cut(client)
        closing.cancel()
    await asyncio.gather(closing, return_exceptions=True)
    for _ in range(3):  # it cancels its tasks, and does not wait for them
        await asyncio.sleep(0)


def _cut(client: Client) -> None:
    """Close the socket at once: nats-py waits for a server that has stopped reading."""
    writer = getattr(client._transport, "_io_writer", None)
    if writer is not None:
        writer.transport.abort()
