"""Module _link keeps a connection to NATS: it comes back, with every subscription, and says so."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import random
import uuid
from collections.abc import Callable, Mapping

import nats.errors

from shoal._nats._client import Client, Msg, connect, discard, sentence
from shoal._nats._interest import Interest, OnMessage, nobody
from shoal._nats._outbox import Outbox
from shoal._nats._settings import NatsSettings, Server, servers
from shoal.errors import Error, Unavailable
from shoal.tls import Tls

logger = logging.getLogger(__name__)

PAUSE, LONGEST_PAUSE = 0.05, 2.0  # seconds between two rounds of attempts to connect


class Link:
    """One connection to one of several servers, made again whenever it breaks.

    While it is broken, whatever needs it waits for `patience` seconds and then raises Unavailable.
    Only what was never handed to a connection is sent on the next one; the rest is the caller's to
    repeat, who is told.
    """

    def __init__(
        self, address: str, settings: NatsSettings | None, tls: Tls | None, id: str
    ) -> None:
        """Do nothing yet; `id` is whose errors are raised."""
        self.address = address
        self.settings = settings or NatsSettings()
        self.error: Exception | None = None
        """Why there is no connection now, None if there is one or none is wanted."""
        self.where = ""
        """The server one is connected to, empty without."""
        self.connections = 0
        """How often a connection was made."""
        self.on_lost: list[Callable[[Unavailable], object]] = []
        """What is told that the connection broke."""
        self.on_back: list[Callable[[], object]] = []
        """What is told that there is a new one, with all subscriptions."""
        self.inbox = f"{self.settings.inbox}.{uuid.uuid4().hex[:22]}"
        self._tls = tls
        self._id = id
        self._tokens: dict[str, OnMessage] = {}
        self._numbers = itertools.count(1)
        self._interests: list[Interest] = []
        self._discovered: list[Server] = []
        self._client: Client | None = None
        self._lost: asyncio.Future[Exception] | None = None
        self._outbox: Outbox | None = None
        self._back: asyncio.Event = asyncio.Event()
        self._supervisor: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._lock = asyncio.Lock()

    def __repr__(self) -> str:
        state = f"connected to {self.where}" if self.where else f"not connected: {self.error}"
        if self._supervisor is None:
            state = "closed"
        return f"<NATS {state}, {len(self._interests)} subscriptions>"

    @property
    def max_payload(self) -> int:
        """Bytes of the largest message the server takes; 0 without a connection."""
        return self._client.max_payload if self._client is not None else 0

    # Being connected

    async def open(self) -> None:
        """Connect, unless it is open already; raises Unavailable if no server can be reached."""
        if self._supervisor is not None:
            return
        async with self._lock:
            if self._supervisor is not None:
                return
            client = await self._connect()
            try:
                await self._begin(client)
            except BaseException:
                await discard(client, graceful=False)
                raise
            self._supervisor = asyncio.get_running_loop().create_task(self._supervise())

    async def close(self) -> None:
        """End it and all subscriptions, after what was handed over went out. Never raises."""
        # In a task of its own, so that being cancelled leaves nothing behind.
        await asyncio.shield(asyncio.get_running_loop().create_task(self._close()))

    async def _close(self) -> None:
        async with self._lock:
            supervisor, self._supervisor = self._supervisor, None
            if supervisor is None:
                return
            if self._outbox is not None:
                await self._outbox.drain(self.settings.timeout)
            supervisor.cancel()
            await asyncio.gather(supervisor, return_exceptions=True)
            self._interests.clear()
            self._tokens.clear()
            await self._end(Unavailable("the connection was closed", id=self._id), graceful=True)
            await asyncio.gather(*self._ending, return_exceptions=True)
            self.error = None

    async def ready(self) -> Outbox:
        """Return what sends, waiting for a connection that broke; raises Unavailable."""
        await self.open()
        if self._outbox is None:
            try:
                async with asyncio.timeout(self.settings.patience):
                    await self._back.wait()
            except TimeoutError:
                pass
        if self._outbox is None:
            raise self._unavailable()
        return self._outbox

    async def _connect(self) -> Client:
        """Return a connection to the first server that takes one."""
        known = servers(self.address, self._id)
        known += [server for server in self._discovered if server not in known]
        random.shuffle(known)
        for place, server in enumerate(known, 1):
            lost: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
            on_error = functools.partial(self._on_error, lost)
            try:
                client = await connect(server, self.settings, self._tls, on_error)
            except Unavailable as error:
                error.id = self._id
                if place == len(known):
                    raise
                logger.debug("%s", error)
            else:
                self.where, self._lost = server.where, lost
                self._discover(client, server)
                return client
        raise AssertionError("there is always an address")

    def _discover(self, client: Client, server: Server) -> None:
        """Remember the other servers of the cluster, which need the same credentials."""
        self._discovered = [
            Server(url.hostname, url.port or 4222, server.user, server.password, server.secure)
            for url in client.discovered_servers
            if url.hostname
        ][:64]

    async def _begin(self, client: Client) -> None:
        """Subscribe to everything on a new connection, and let others have it."""
        outbox = Outbox(client, self.settings, self._break)
        try:
            if not self._interests:
                self._interests.append(Interest(f"{self.inbox}.*", "", self._dispatch))
            for interest in list(self._interests):  # others may be taken out meanwhile
                await interest.make(client)
            await outbox.confirm()
        except BaseException as error:
            await outbox.close(self._unavailable())
            if isinstance(error, nats.errors.Error):
                raise Unavailable(sentence(self.where, error), id=self._id) from error
            raise
        self._client, self._outbox = client, outbox
        self.error = None
        self.connections += 1
        self._back.set()

    async def _end(self, error: Unavailable, *, graceful: bool) -> None:
        """Let go of a connection; whoever uses it is told first."""
        client, outbox = self._client, self._outbox
        self._client = self._outbox = None
        self._back.clear()
        self.where = ""
        for tell in list(self.on_lost):
            tell(error)
        if client is None or outbox is None:
            return

        async def let_go() -> None:
            await outbox.close(error)
            await discard(client, graceful=graceful)

        # In a task that `close` waits for, as the one that runs this may be cancelled meanwhile.
        task = asyncio.get_running_loop().create_task(let_go())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        await asyncio.shield(task)

    async def _supervise(self) -> None:
        wanted = asyncio.current_task()
        while self._supervisor is wanted:  # nats-py may lose the cancellation that `close` makes
            assert self._lost is not None
            cause = await self._lost
            self.error = Unavailable(
                f"the connection to NATS broke: {sentence(self.where, cause)}", id=self._id
            )
            logger.warning("%s", self.error)
            await self._end(self._unavailable(), graceful=False)
            pause = PAUSE
            while self._client is None and self._supervisor is wanted:
                # Jitter, so that what lost its server together does not come back as one.
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))
                pause = min(2 * pause, LONGEST_PAUSE)
                await self._again()
            if self._supervisor is wanted:
                logger.info("connected to NATS at %s again", self.where)
                for tell in list(self.on_back):
                    tell()

    async def _again(self) -> None:
        client = None
        try:
            client = await self._connect()
            await self._begin(client)
        except BaseException as error:
            if client is not None:
                await discard(client, graceful=False)
            self.where = ""
            if not isinstance(error, Exception):
                raise
            self.error = error
            level = logging.DEBUG if isinstance(error, Error) else logging.ERROR
            logger.log(level, "still no connection: %s", error)

    def _on_error(self, lost: asyncio.Future[Exception], error: Exception) -> None:
        """Judge what nats-py reports of a connection."""
        text = str(error)
        if "permissions violation" in text:
            logger.warning("NATS at %s: %s", self.where, text.removeprefix("nats: "))
            if self._outbox is not None:
                self._outbox.refused(text)
            for interest in self._interests:
                if f'subscription to "{interest.subject.lower()}"' in text:
                    interest.refused = text
        elif isinstance(error, nats.errors.SlowConsumerError):
            logger.warning("a message of %r was dropped: too many wait", error.subject)
        elif not lost.done():
            lost.set_result(error)

    def _break(self, error: Exception) -> None:
        """Give the connection up: it does not answer."""
        if self._lost is not None and not self._lost.done():
            self._lost.set_result(error)

    def _unavailable(self) -> Unavailable:
        return Unavailable(str(self.error or "there is no connection to NATS"), id=self._id)

    # Using it

    async def publish(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
        confirm: bool = True,
    ) -> None:
        """Send a message, and with `confirm` wait until the server has taken it.

        Raises TooLarge for one the server would not take, and Unavailable, with `unsent` set if
        it certainly was not sent.
        """
        outbox = await self.ready()
        await outbox.publish(subject, payload, reply=reply, headers=headers, confirm=confirm)

    def publish_soon(
        self,
        subject: str,
        payload: bytes = b"",
        *,
        reply: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Send a message if there is a connection; nobody is told what becomes of it."""
        if self._outbox is not None:
            self._outbox.publish_soon(subject, payload, reply=reply, headers=headers)

    async def subscribe(self, subject: str, on_message: OnMessage, *, queue: str = "") -> Interest:
        """Subscribe; when it returns the server knows. Raises Unavailable."""
        outbox = await self.ready()
        interest = Interest(subject, queue, on_message)
        self._interests.append(interest)
        try:
            if interest.client is not outbox.client:
                await interest.make(outbox.client)
            await outbox.confirm()
            if interest.refused:
                raise Unavailable(f"NATS does not permit to subscribe to {subject}", id=self._id)
        except BaseException as error:
            await self.unsubscribe(interest)
            if isinstance(error, nats.errors.Error):
                raise Unavailable(sentence(self.where, error), id=self._id) from error
            raise
        return interest

    async def unsubscribe(self, interest: Interest, *, drain: bool = False) -> None:
        """Take a subscription back; no message of it comes afterwards. Never raises.

        With `drain` what the server had sent for it before still comes.
        """
        if interest in self._interests:
            self._interests.remove(interest)
        try:
            await interest.end(drain=drain)
            if self._outbox is not None:
                await self._outbox.confirm()
        except (Unavailable, nats.errors.Error) as error:
            logger.debug("%r ended with its connection: %s", interest, error)
        await asyncio.sleep(0)  # nats-py cancels the task of it, and does not wait

    def reply_to(self, on_message: OnMessage) -> str:
        """Return a subject of one's own whose messages are given to a function, until `forget`."""
        subject = f"{self.inbox}.{next(self._numbers)}"
        self._tokens[subject] = on_message
        return subject

    def forget(self, subject: str) -> None:
        """Take what comes for a subject of `reply_to` no more."""
        self._tokens.pop(subject, None)

    async def request(
        self, subject: str, payload: bytes = b"", *, headers: Mapping[str, str] | None = None
    ) -> Msg:
        """Return the first answer to a message; raises Unavailable if none comes in time."""
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

        def on_message(message: Msg) -> None:
            if not answer.done():
                answer.set_result(message)

        reply = self.reply_to(on_message)
        try:
            outbox = await self.ready()
            await outbox.publish(subject, payload, reply=reply, headers=headers, answer=answer)
            async with asyncio.timeout(self.settings.timeout):
                message = await answer
        except TimeoutError:
            raise Unavailable(
                f"nobody answered at {subject} within {self.settings.timeout:g} s", id=self._id
            ) from None
        finally:
            self.forget(reply)
        if nobody(message):
            error = Unavailable(f"nobody listens at {subject}", id=self._id)
            error.unsent = True
            raise error
        return message

    def _dispatch(self, message: Msg) -> None:
        on_message = self._tokens.get(message.subject)
        if on_message is not None:
            on_message(message)
