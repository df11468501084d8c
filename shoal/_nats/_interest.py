"""Module _interest is a subscription that outlives the connection it was made on."""

from __future__ import annotations

import logging
from collections.abc import Callable

from nats.aio.subscription import Subscription

from shoal._nats._client import Client, Msg

logger = logging.getLogger(__name__)

UNREAD = 65536, 64 * 1024 * 1024  # messages and bytes that may wait for their turn
NO_RESPONDERS = "503"

OnMessage = Callable[[Msg], object]
"""Takes a message at once; what it raises is logged."""


class Interest:
    """What one wants to hear; the link makes it again on every new connection."""

    def __init__(self, subject: str, queue: str, on_message: OnMessage) -> None:
        self.subject = subject
        self.queue = queue
        self.client: Client | None = None
        """The connection it is made on."""
        self.refused = ""
        """Why the server does not permit it."""
        self._on_message = on_message
        self._native: Subscription | None = None
        self._ended = False

    def __repr__(self) -> str:
        return f"Interest({self.subject!r}, queue={self.queue!r})"

    async def make(self, client: Client) -> None:
        """Subscribe on a connection, unless it was taken back."""
        if self._ended:
            return
        self.client, self.refused = client, ""
        native = await client.subscribe(
            self.subject,
            self.queue,
            self._take,
            pending_msgs_limit=UNREAD[0],
            pending_bytes_limit=UNREAD[1],
        )
        if self._ended:  # meanwhile
            await native.unsubscribe()
        else:
            self._native = native

    async def end(self, *, drain: bool = False) -> None:
        """Take it back, if its connection still stands; nothing is heard from here on.

        With `drain` what the server had sent before is heard first.
        """
        self._ended = not drain
        native, self._native = self._native, None
        client, self.client = self.client, None
        try:
            if native is not None and client is not None and client.is_connected:
                if drain:
                    await native.drain()  # type: ignore[no-untyped-call]  # nats-py's own
                else:
                    await native.unsubscribe()
        finally:
            self._ended = True

    async def _take(self, message: Msg) -> None:
        if self._ended:
            return
        try:
            self._on_message(message)
        except Exception:
            logger.exception("taking a message of %r failed", self.subject)


def nobody(message: Msg) -> bool:
    """Whether a message is the server's word that nobody got what it answers."""
    return (
        not message.data
        and message.headers is not None
        and message.headers.get("Status") == NO_RESPONDERS
    )
