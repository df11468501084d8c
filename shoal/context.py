"""Package context holds the metadata and the deadline of the running call."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from msgspec import Struct
from msgspec.structs import replace

from shoal.errors import BadRequest
from shoal.message import canonical, clean, shown


class Metadata(dict[str, str]):
    """Names and values that travel with a call; look-ups ignore the case of names."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"Metadata({shown(self)})"

    def __missing__(self, name: str) -> str:
        try:
            key = canonical(name)
        except ValueError:  # no name at all, so nothing has it
            raise KeyError(name) from None
        if key == name:
            raise KeyError(name)
        return self[key]

    def get(  # type: ignore[override]  # dict's has three overloads for what is one thing here
        self, name: str, default: str | None = None
    ) -> str | None:
        try:
            return self[name]
        except KeyError:
            return default

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self.get(name) is not None


class Context(Struct, frozen=True):
    """What a call inherits: metadata to send on, and the loop time at which it must be over."""

    metadata: Mapping[str, str]
    deadline: float | None
    incoming: Mapping[str, str]

    def __repr__(self) -> str:
        metadata, incoming = shown(self.metadata), shown(self.incoming)
        return f"Context({metadata}, deadline={self.deadline}, incoming={incoming})"


NO_METADATA = Metadata()
NOTHING = Context(NO_METADATA, None, Metadata())
current: ContextVar[Context] = ContextVar("shoal.context", default=NOTHING)

# Headers that belong to one hop; everything else a caller sent travels on with nested calls.
HOP = frozenset(
    """Accept Accept-Encoding Connection Content-Length Content-Type Expect Host Keep-Alive Local
    Remote Te Timeout Trailer Transfer-Encoding Upgrade User-Agent Micro-Service Micro-Endpoint
    Micro-Method Micro-Id Micro-Stream Micro-Error Micro-Topic Micro-Protocol Micro-Target
    X-Micro-Service X-Micro-Endpoint X-Micro-Method X-Micro-Id X-Micro-Stream X-Micro-Error
    X-Micro-Topic X-Micro-Target Micro-From-Service""".split()
)


def metadata() -> Metadata:
    """Return a copy of the metadata of the running call: all headers of the request it came with,
    overlaid by what `with_metadata` added."""
    context = current.get()
    return Metadata({**context.incoming, **context.metadata})


@contextmanager
def with_metadata(values: Mapping[str, str] | None = None, /, **more: str) -> Iterator[None]:
    """Send these names and values with every call and event of the block.

    Underscores in keyword names become dashes. Raises BadRequest for a name or value that a
    header cannot carry.
    """
    context = current.get()
    added = {**(values or {}), **{name.replace("_", "-"): value for name, value in more.items()}}
    token = current.set(replace(context, metadata=Metadata({**context.metadata, **checked(added)})))
    try:
        yield
    finally:
        current.reset(token)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Let every call, retry, publish and look-up of the block be over in so many seconds.

    An earlier deadline that is already running stays.
    """
    context = current.get()
    when = asyncio.get_running_loop().time() + seconds
    if context.deadline is not None and context.deadline < when:
        when = context.deadline
    token = current.set(replace(context, deadline=when))
    try:
        yield
    finally:
        current.reset(token)


def remaining() -> float | None:
    """Return the seconds left for the running call, None if it has no deadline."""
    when = current.get().deadline
    return None if when is None else when - asyncio.get_running_loop().time()


def outgoing(context: Context) -> Mapping[str, str]:
    """Return the metadata a call made in this context takes along."""
    if not context.incoming:
        return context.metadata
    kept = {name: value for name, value in context.incoming.items() if name not in HOP}
    kept.update(context.metadata)
    return kept


def published(context: Context) -> Mapping[str, str]:
    """Return the metadata an event takes along that is published in this context.

    Without the token that a caller has shown: brokers keep what they carry.
    """
    kept = outgoing(context)
    if "Authorization" not in context.incoming or "Authorization" in context.metadata:
        return kept
    return {name: value for name, value in kept.items() if name != "Authorization"}


def checked(values: Mapping[str, str]) -> dict[str, str]:
    """Return metadata in the form headers have; raises BadRequest naming what cannot be sent."""
    result = {}
    for name, value in values.items():
        if not isinstance(value, str):
            raise BadRequest(f"metadata {name!r} must be a str, not {type(value).__name__}")
        try:
            key = canonical(name)
        except ValueError as error:
            raise BadRequest(str(error)) from None
        if key == "Micro-Topic":  # a call that carries it would be taken for an event
            raise BadRequest("metadata 'Micro-Topic' is the protocol's own: publish instead")
        result[key] = clean(value)
    return result
