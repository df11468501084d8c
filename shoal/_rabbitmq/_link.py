"""Module _link keeps a connection to RabbitMQ: it comes back, and says so."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

import aiormq.abc

from shoal._rabbitmq._client import Client, connect, sentence
from shoal._rabbitmq._format import Properties
from shoal._rabbitmq._settings import RabbitSettings, servers
from shoal.errors import Error, TooLarge, Unavailable
from shoal.tls import Tls

logger = logging.getLogger(__name__)

PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds between two rounds of attempts to connect
PROPERTIES, FIELD = 4096, 16  # bytes of properties beside the headers, of a field beside its text


class Link:
    """One connection to one of several servers, made again whenever it breaks.

    While it is broken, whatever needs it waits for `patience` seconds and then raises Unavailable.
    """

    def __init__(
        self, address: str, settings: RabbitSettings | None, tls: Tls | None, id: str
    ) -> None:
        """Do nothing yet; `id` is whose errors are raised. Raises BadRequest for the address."""
        self.settings = settings or RabbitSettings()
        self.error: Exception | None = None
        """Why there is no connection now, None if there is one or none is wanted."""
        self.where = ""
        """The server one is connected to, empty without."""
        self.connections = 0
        """How often a connection was made."""
        self.on_lost: list[Callable[[Unavailable], object]] = []
        """What is told that the connection broke."""
        self.id = id
        self._servers = servers(address, secure=tls is not None)
        self._tls = tls
        self._client: Client | None = None
        self._back = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        state = f"connected to {self.where}" if self.where else f"not connected: {self.error}"
        return f"<RabbitMQ {state if self._supervisor is not None else 'closed'}>"

    # Being connected

    async def open(self) -> None:
        """Connect, unless it is open already; raises Unavailable if no server can be reached."""
        if self._supervisor is not None:
            return
        async with self._lock:
            if self._supervisor is None:
                await self._connect()
                self._supervisor = asyncio.get_running_loop().create_task(self._supervise())

    async def close(self) -> None:
        """End it, after what was handed over went out. Never raises."""
        # In a task of its own, so that being cancelled leaves nothing behind.
        await asyncio.shield(asyncio.get_running_loop().create_task(self._close()))

    async def _close(self) -> None:
        async with self._lock:
            supervisor, self._supervisor = self._supervisor, None
            if supervisor is None:
                return
            supervisor.cancel()
            await asyncio.gather(supervisor, return_exceptions=True)
            await self._end(Unavailable("the connection was closed", id=self.id), graceful=True)
            self.error = None

    async def client(self) -> Client:
        """Return the connection, waiting for one that broke; raises Unavailable."""
        await self.open()
        if self._client is None:
            try:
                async with asyncio.timeout(self.settings.patience):
                    await self._back.wait()
            except TimeoutError:
                pass
        if self._client is None:
            raise Unavailable(str(self.error or "there is no connection to RabbitMQ"), id=self.id)
        return self._client

    async def next_client(self) -> Client:
        """Return the connection, waiting for it as long as it takes."""
        while self._client is None:
            await self._back.wait()
        return self._client

    async def _connect(self) -> None:
        """Connect to the first server that takes it."""
        errors = []
        for server in random.sample(self._servers, len(self._servers)):
            try:
                client = await connect(server, self.settings, self._tls)
            except Unavailable as error:
                errors.append(error)
                continue
            self._client, self.where = client, client.where
            self.error = None
            self.connections += 1
            self._back.set()
            return
        raise Unavailable("; ".join(map(str, errors)), id=self.id) from errors[-1]

    async def _end(self, error: Unavailable, *, graceful: bool) -> None:
        """Let go of a connection; whoever uses it is told first."""
        client, self._client = self._client, None
        self._back.clear()
        self.where = ""
        for tell in list(self.on_lost):
            tell(error)
        if client is not None:
            await client.close(graceful=graceful)

    async def _supervise(self) -> None:
        while True:
            assert self._client is not None
            cause = await self._client.watch()
            error = Unavailable(
                f"the connection to RabbitMQ broke: {sentence(self.where, cause)}", id=self.id
            )
            self.error = error
            logger.warning("%s", error)
            await self._end(error, graceful=False)
            pause = PAUSE
            while self._client is None:
                # Jitter, so that what lost its server together does not come back as one.
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, LONGEST_PAUSE)
                try:
                    await self._connect()
                except Exception as again:
                    self.error = again
                    level = logging.DEBUG if isinstance(again, Error) else logging.ERROR
                    logger.log(level, "still no connection: %s", again)
            logger.info("connected to RabbitMQ at %s again", self.where)

    # Using it

    async def publish(
        self,
        key: str,
        body: bytes,
        properties: Properties,
        *,
        exchange: str | None = None,
        mandatory: bool = False,
        channel: aiormq.abc.AbstractChannel | None = None,
    ) -> bool:
        """Send a message and wait until the server has taken it.

        Returns False if it is `mandatory` and there is no queue for it. Without `exchange` it goes
        to that of the settings. Raises Unavailable, and TooLarge for a header beyond a frame.
        """
        client = await self.client()
        self._check(properties, client.largest_header)
        try:
            channel = channel or await client.publisher()
            async with client.answering():
                result = await channel.basic_publish(
                    body,
                    exchange=self.settings.exchange if exchange is None else exchange,
                    routing_key=key,
                    properties=properties,
                    mandatory=mandatory,
                    # To wait for each to be written is only needed to bound what is not.
                    wait=client.congested,  # type: ignore[call-arg]  # only Channel itself has it
                )
        except Unavailable as error:
            raise Unavailable(f"RabbitMQ has not taken it: {error}", id=self.id) from error
        return not isinstance(result, aiormq.abc.DeliveredMessage)

    def _check(self, properties: Properties, largest: int) -> None:
        """Raise TooLarge for a header beyond a frame."""
        headers = properties.headers or {}
        # Of text each letter has up to four bytes; only what may be too large is measured.
        text = sum(len(name) + len(str(value)) + FIELD for name, value in headers.items())
        if PROPERTIES + 4 * text <= largest:
            return
        size = len(properties.marshal())
        if size > largest:
            raise TooLarge(f"the header is {size} bytes, RabbitMQ takes {largest}", id=self.id)
