"""Module _client makes and ends one connection of aiormq, and says in a sentence what failed."""

from __future__ import annotations

import asyncio
import ssl
import struct
from contextlib import suppress
from types import TracebackType
from typing import Any

import aiormq
import pamqp.exceptions
import pamqp.frame
import yarl
from aiormq.abc import AbstractChannel

from shoal._rabbitmq._settings import RabbitSettings, Server
from shoal._reasons import reason
from shoal.errors import Unavailable
from shoal.tls import Tls

OLDEST = (3, 8)
ALERT = b"\x15"  # the first byte of what a server that wants TLS answers to what is none
METHOD = 1  # the first byte of a frame of AMQP that is no content
WAITING = 64 * 1024  # bytes
GRACE = 1.0  # seconds for what was written to go out before a connection is cut


class _Reader(asyncio.StreamReader):
    """Remembers when it heard something, and of the first words what they were."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.loop = loop
        self.heard = loop.time()
        self.opening = True
        self.first = self.last = b""

    def feed_data(self, data: Any) -> None:
        self.heard = self.loop.time()
        if self.opening:
            self.last = bytes(data[:4096])
            self.first = self.first or self.last
        super().feed_data(data)


class _Opened(aiormq.TransportFactory):
    """Gives aiormq a connection that is there already, since we must be able to cut it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._streams = reader, writer

    async def create(
        self, url: yarl.URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return self._streams


class _Answering:
    """A block with a time limit; a generator would cost every publication twice as much."""

    __slots__ = ("_limit", "_where")

    def __init__(self, where: str, seconds: float) -> None:
        self._where = where
        self._limit = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._limit.__aenter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            await self._limit.__aexit__(kind, error, trace)
        except TimeoutError as late:
            raise Unavailable(sentence(self._where, late)) from late
        if isinstance(error, asyncio.CancelledError):
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                # aiormq cancels what waits for a connection that is closed.
                raise Unavailable(f"{self._where} closed the connection") from error
        elif isinstance(error, OSError | TimeoutError | aiormq.AMQPError | RuntimeError):
            raise Unavailable(sentence(self._where, error)) from error


class Client:
    """A connection that breaks once: whoever owns it makes the next one."""

    def __init__(self, server: Server, settings: RabbitSettings) -> None:
        self.where = server.where
        self.lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        """What it broke of."""
        self._server = server
        self._settings = settings
        self._reader: _Reader | None = None
        self._connection: aiormq.Connection | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._publisher: AbstractChannel | None = None
        self._manager: AbstractChannel | None = None
        self._lock = asyncio.Lock()

    @property
    def largest_header(self) -> int:
        """Bytes of the largest header the server takes: one frame."""
        assert self._connection is not None
        return int(self._connection.connection_tune.frame_max or 1 << 17) - 1024

    @property
    def congested(self) -> bool:
        """Whether more than a little waits to be written."""
        return self._transport is None or self._transport.get_write_buffer_size() > WAITING

    async def open(self, tls: Tls | None) -> None:
        """Connect; raises what aiormq and the system raise."""
        loop = asyncio.get_running_loop()
        reader = self._reader = _Reader(loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        secure = (tls or Tls()).client_context(alpn=()) if tls or self._server.secure else None
        transport, _ = await loop.create_connection(
            lambda: protocol, self._server.host, self._server.port, ssl=secure
        )
        self._transport = transport
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        self._connection = aiormq.Connection(self._url(), transport_factory=_Opened(reader, writer))
        await self._connection.connect()
        reader.opening = False
        self._connection.closing.add_done_callback(self._closed)
        _check(self._connection.server_properties or {}, self.where)

    def _url(self) -> yarl.URL:
        server, settings = self._server, self._settings
        password = settings.password if isinstance(settings.password, str) else settings.password()
        return yarl.URL.build(
            scheme="amqp",
            host=server.host,
            port=server.port,
            user=server.user or settings.user,
            password=server.password if server.user else password,
            path="/" + (server.vhost or settings.vhost).removeprefix("/"),
            query={"heartbeat": str(settings.heartbeat), "name": settings.name},
        )

    def complaint(self, error: Exception) -> str:
        """Return why there is no connection, for a person; no secret is in it."""
        reader = self._reader
        if reader is not None and isinstance(broken := reader.exception(), ssl.SSLError):
            error = broken  # which aiormq does not tell
        elif reader is not None and reader.first[:1] == ALERT:
            return f"{self.where} wants TLS: write amqps://{self.where}"
        elif reader is not None and reader.first and reader.first[0] != METHOD:
            error = aiormq.ProtocolSyntaxError()
        elif reader is not None and isinstance(error, aiormq.InvalidFrameError):
            # aiormq does not tell what the server says when it closes instead of opening.
            with suppress(pamqp.exceptions.PAMQPException, ValueError, LookupError, struct.error):
                frame = pamqp.frame.unmarshal(reader.last)[2]
                if isinstance(frame, aiormq.spec.Connection.Close):
                    error = aiormq.ConnectionClosed(frame.reply_code, frame.reply_text)
        return sentence(self.where, error)

    def _closed(self, closing: asyncio.Future[Any]) -> None:
        error = None if closing.cancelled() else closing.exception()
        if not self.lost.done():
            usual = isinstance(error, Exception)
            self.lost.set_result(error if usual else ConnectionResetError("connection reset"))  # type: ignore[arg-type]  # it is one

    async def watch(self) -> Exception:
        """Wait until it broke, and return of what; a server that says nothing has broken it."""
        assert self._reader is not None
        beat = float(self._settings.heartbeat)
        while not self.lost.done():
            await asyncio.wait([self.lost], timeout=beat / 2)
            silence = asyncio.get_running_loop().time() - self._reader.heard
            if silence > 2 * beat and not self.lost.done():
                # If it was this process that stood still, what came meanwhile is read first.
                await asyncio.sleep(0.1)
                if asyncio.get_running_loop().time() - self._reader.heard > 2 * beat:
                    return TimeoutError(f"nothing was heard for {silence:.0f} s")
        return self.lost.result()

    async def channel(self, *, confirms: bool = False) -> AbstractChannel:
        """Return a new channel; raises Unavailable."""
        assert self._connection is not None
        async with self.answering():
            return await self._connection.channel(
                publisher_confirms=confirms, on_return_raises=False
            )

    async def publisher(self) -> AbstractChannel:
        """Return the channel for publishing, with the exchange declared; raises Unavailable."""
        async with self._lock:
            channel = self._publisher
            if channel is None or channel.is_closed:  # the server closes it for a mistake
                channel = await self.channel(confirms=True)
                settings = self._settings
                async with self.answering():
                    await channel.exchange_declare(
                        settings.exchange,
                        exchange_type=settings.exchange_type,
                        durable=bool(settings.durable_exchange),
                    )
                self._publisher = channel
            return channel

    async def manager(self) -> AbstractChannel:
        """Return a channel for declaring, apart: what the server refuses there ends it."""
        async with self._lock:
            if self._manager is None or self._manager.is_closed:
                self._manager = await self.channel()
            return self._manager

    def answering(self) -> _Answering:
        """Give a block the usual time; turns what aiormq raises in it into Unavailable."""
        return _Answering(self.where, self._settings.timeout)

    async def close(self, *, graceful: bool) -> None:
        """End it and its tasks; what was written still goes out if `graceful`."""
        if self._transport is None:
            return
        if not graceful:
            self._transport.abort()
        if self._connection is not None:
            closed = aiormq.ConnectionClosed(0, "closed")
            closing = asyncio.get_running_loop().create_task(self._connection.close(closed))
            try:
                await asyncio.wait({closing}, timeout=GRACE)
                self._transport.abort()
                await asyncio.wait({closing}, timeout=GRACE)
            finally:
                self._transport.abort()
                closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)
        self._transport.abort()
        for _ in range(5):  # aiormq ends its tasks, and does not wait for all of them
            await asyncio.sleep(0)


async def connect(server: Server, settings: RabbitSettings, tls: Tls | None) -> Client:
    """Return a connection to one server; raises Unavailable saying why there is none."""
    client = Client(server, settings)
    try:
        async with asyncio.timeout(settings.timeout):
            await client.open(tls)
        await client.publisher()
    except Unavailable as error:
        await client.close(graceful=False)
        raise Unavailable(f"no connection to RabbitMQ: {error}") from error
    except (OSError, TimeoutError, EOFError, RuntimeError, aiormq.AMQPError) as error:
        await client.close(graceful=False)
        raise Unavailable(f"no connection to RabbitMQ: {client.complaint(error)}") from error
    except BaseException:
        await client.close(graceful=False)
        raise
    return client


def _check(properties: dict[str, Any], where: str) -> None:
    product, version = (_text(properties.get(name)) for name in ("product", "version"))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if product == "RabbitMQ" and numbers < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise Unavailable(f"{where} runs RabbitMQ {version}: {needed} or newer is needed")
    able = properties.get("capabilities") or {}
    if not (able.get("publisher_confirms") and able.get("basic.nack")):
        raise Unavailable(f"{where} runs {product} {version}, which cannot confirm what it takes")


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")


def sentence(where: str, error: Exception) -> str:
    """Return what went wrong at an address, for a person; no secret is in it."""
    if isinstance(error, aiormq.ProbableAuthenticationError):
        return f"{where} refuses these credentials"
    if isinstance(error, aiormq.AuthenticationError):
        return f"{where} takes no password"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate of {where} is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        if "CERTIFICATE_REQUIRED" in str(error.reason):
            return f"{where} wants a certificate: set tls_cert_file"
        return f"{where} offers no TLS, which was asked for"
    if isinstance(error, TimeoutError):
        return f"{where} did not answer in time"
    if isinstance(error, aiormq.ProtocolSyntaxError | aiormq.IncompatibleProtocolError | EOFError):
        return f"what answers at {where} is no RabbitMQ server"
    if isinstance(error, aiormq.ConnectionClosed | aiormq.ChannelClosed):
        return f"{where}: {error.args[-1] if error.args else 'it closed the connection'}"
    if isinstance(error, aiormq.AMQPConnectionError | RuntimeError):
        return f"{where} closed the connection"
    if isinstance(error, OSError):
        return f"{where}: {reason(error)}"
    return f"{where}: {error}"
