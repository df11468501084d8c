"""Module _consumer keeps one queue consumed, over all connections that come and go."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable

from aiormq.abc import AbstractChannel

from shoal._rabbitmq._client import Client
from shoal._rabbitmq._format import Delivery
from shoal._rabbitmq._link import Link
from shoal.errors import Error, Unavailable

logger = logging.getLogger(__name__)

PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between two attempts on a connection that is well

Declare = Callable[[AbstractChannel], Awaitable[str]]
"""Declares the queue and what it is bound to, and returns its name."""


class Consumer:
    """A channel with one consumer, made again when it or its connection breaks."""

    def __init__(
        self,
        link: Link,
        declare: Declare,
        on_message: Callable[[Delivery], object],
        *,
        prefetch: int = 0,
        no_ack: bool = False,
        confirms: bool = False,
        on_lost: Callable[[], object] = lambda: None,
    ) -> None:
        """Do nothing yet; `on_message` must not wait.

        With `confirms` one can publish on its channel too; `on_lost` is told that it broke.
        """
        self.error: Exception | None = None
        """Why nothing is consumed now, although there is a connection."""
        self.queue = ""
        """The queue's name, which may be another one after a reconnection."""
        self._link = link
        self._declare = declare
        self._on_message = on_message
        self._prefetch = prefetch
        self._no_ack = no_ack
        self._confirms = confirms
        self._on_lost = on_lost
        self._client: Client | None = None
        self._channel: AbstractChannel | None = None
        self._tag = ""
        self._begun = asyncio.Event()
        self._ended = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        state = "consumed" if self._channel is not None else f"not consumed: {self.error}"
        return f"<queue {self.queue!r} {state}>"

    @property
    def channel(self) -> AbstractChannel | None:
        """The channel it consumes on, None while there is none."""
        return self._channel

    @property
    def started(self) -> bool:
        """Whether it is kept consuming."""
        return self._keeper is not None

    async def ready(self) -> None:
        """Wait until it consumes, for as long as is waited for a connection."""
        async with asyncio.timeout(self._link.settings.patience):
            await self._begun.wait()

    async def start(self) -> None:
        """Consume; when it returns, what is published arrives. Raises Unavailable."""
        try:
            await self._begin(await self._link.client())
        except Unavailable as error:
            raise Unavailable(str(error), id=self._link.id) from error
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def stop(self) -> None:
        """Let the server send no more; what was delivered can still be acknowledged."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)
        await self._try(self._cancel)

    async def close(self) -> None:
        """End it: what was not acknowledged goes back to the queue. Never raises."""
        await self.stop()
        await self._try(self._close_channel)
        self._channel = None

    async def _try(self, work: Callable[[AbstractChannel], Awaitable[object]]) -> None:
        channel, client = self._channel, self._client
        if channel is None or client is None or channel.is_closed:
            return
        try:
            async with client.answering():
                await work(channel)
        except Unavailable as error:
            logger.debug("%r ended with its connection: %s", self, error)

    async def _cancel(self, channel: AbstractChannel) -> None:
        if self._tag:
            tag, self._tag = self._tag, ""
            await channel.basic_cancel(tag)

    async def _close_channel(self, channel: AbstractChannel) -> None:
        await channel.close()

    async def _begin(self, client: Client) -> None:
        channel = await client.channel(confirms=self._confirms)
        ended = asyncio.Event()
        self._client, self._ended = client, ended
        channel.closing.add_done_callback(lambda _: ended.set())
        channel.on_consumer_cancel_callbacks.add(lambda _: ended.set())
        try:
            async with client.answering():
                if self._prefetch:
                    await channel.basic_qos(prefetch_count=self._prefetch)
                self.queue = await self._declare(channel)
                tag = str(uuid.uuid4())
                await channel.basic_consume(
                    self.queue, self._take, no_ack=self._no_ack, consumer_tag=tag
                )
        except BaseException:
            await self._drop(channel)
            raise
        self._channel, self._tag = channel, tag
        self._begun.set()
        self.error = None

    async def _take(self, message: Delivery) -> None:
        self._on_message(message)

    async def _keep(self) -> None:
        pause = PAUSE
        while True:
            await self._ended.wait()
            self._begun.clear()
            self._on_lost()
            channel, self._channel = self._channel, None
            if channel is not None:
                await self._drop(channel)  # one whose consumer was cancelled is still open
            client = await self._link.next_client()
            try:
                await self._begin(client)
                pause = PAUSE
                logger.info("the queue %r is consumed again", self.queue)
            except Exception as error:
                if not client.lost.done():
                    self.error = error
                    level = logging.WARNING if isinstance(error, Error) else logging.ERROR
                    logger.log(level, "the queue %r is not consumed: %s", self.queue, error)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)

    async def _drop(self, channel: AbstractChannel) -> None:
        self._channel = channel
        await self._try(self._close_channel)
        self._channel = None
