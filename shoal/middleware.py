"""Package middleware is one shape for what runs around calls, handlers and events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from shoal.message import shown


@dataclass(slots=True)
class Call:
    """What a middleware sees: a call going out, a request coming in, an event either way."""

    side: Literal["client", "server", "publisher", "subscriber"]
    service: str
    """The service that is called or serves; empty for events."""
    endpoint: str
    """`Type.Method`, or the topic of an event."""
    message: Any
    """The request or event; for a call that streams in, the iterator of its items."""
    header: dict[str, str] = field(default_factory=dict)
    """What came with it, or will go with it; a client middleware may add names."""
    stream: bool = False
    """Whether either side streams; the result of `next` is then the stream of replies, or None."""

    def __repr__(self) -> str:
        name = f"{self.service} {self.endpoint}".strip()
        return f"<{self.side} {name}, {shown(self.header)}>"


Next = Callable[[Call], Awaitable[Any]]
"""Runs the rest and returns the reply (None for an event)."""

Middleware = Callable[[Call, Next], Awaitable[Any]]
"""`async def name(call, next)`: whatever runs before, after or instead of `await next(call)`."""


def chain(middleware: Sequence[Middleware], end: Next) -> Next:
    """Return one function that runs all of them around `end`; the first listed is outermost."""
    for one in reversed(middleware):
        end = _around(one, end)
    return end


def _around(one: Middleware, inner: Next) -> Next:
    def run(call: Call) -> Awaitable[Any]:
        return one(call, inner)

    return run
