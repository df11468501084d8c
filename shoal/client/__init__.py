"""Package client is an interface for calling services and publishing events."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Protocol, TypedDict, TypeVar, Unpack

from msgspec import Struct

from shoal.selector import Filter, Strategy

Reply = TypeVar("Reply")
ReplyOut = TypeVar("ReplyOut", covariant=True)


class Request(Struct, Generic[ReplyOut]):
    """What to ask whom, and the type the reply is decoded into.

    `content_type` overrides the one the message's type implies; `message` is None for a stream
    whose items are sent later.
    """

    service: str
    endpoint: str
    message: Any
    reply: type[ReplyOut]
    content_type: str = ""


class CallOptions(TypedDict, total=False):
    """What can be set for one call."""

    timeout: float
    """Seconds for the whole call, retries included; an earlier deadline of the context wins."""
    address: str | Sequence[str]
    """Where to call, one or several `host:port`; discovery is bypassed."""
    retries: int
    """Further attempts after one that may have reached a handler; 0 unless it is idempotent."""
    filters: Sequence[Filter]
    strategy: Strategy
    metadata: Mapping[str, str]
    idempotent: bool
    """The handler may run twice: attempts that failed midway are repeated on another node."""
    attempt_timeout: float
    """Seconds for each attempt; an idempotent call then goes to another node."""
    hedge: bool
    """A second attempt runs beside one that is slower than 95 of 100; only if idempotent."""


class Stream(Protocol[ReplyOut]):
    """An open stream: send items, iterate over replies."""

    @abstractmethod
    async def send(self, item: object) -> None:
        """Send one item. Raises ConnectionClosed when the stream has ended."""

    @abstractmethod
    async def recv(self) -> ReplyOut:
        """Return the next reply.

        Raises EndOfStream after the last one, and the error the handler raised.
        """

    @abstractmethod
    async def close_send(self) -> None:
        """Tell the peer that no more items come; replies can still be received."""

    @abstractmethod
    async def close(self) -> None:
        """End the stream now, which cancels its handler; who receives gets ConnectionClosed."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[ReplyOut]:
        """Iterate over the replies until the handler ends the stream."""


class EndOfStream(Exception):
    """The peer has sent its last item."""


class Client(Protocol):
    """Calls services and publishes events."""

    @abstractmethod
    def call(
        self, request: Request[Reply], **options: Unpack[CallOptions]
    ) -> Coroutine[Any, Any, Reply]:
        """Call an endpoint and return its reply.

        Raises the Error the handler raised; ServiceNotFound or Unavailable if no node could be
        reached; Timeout, naming limit, elapsed time and node, when the time is over.
        """

    @abstractmethod
    def stream(
        self, request: Request[Reply], **options: Unpack[CallOptions]
    ) -> AbstractAsyncContextManager[Stream[Reply]]:
        """Open a stream for the block, closed at its end; raises as `call` does.

        A `message` in the request is sent as the first item.
        """

    @abstractmethod
    async def publish(
        self, topic: str, event: object, *, metadata: Mapping[str, str] | None = None
    ) -> None:
        """Publish an event, encoded by its type. Raises Unavailable if the broker is not there."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connections to services. Never raises."""
