"""Module _call is what the attempts of one call, or the opening of one stream, have in common."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from shoal import context, wire
from shoal.client import CallOptions, Request
from shoal.codec import Codec
from shoal.deadlines import TICK, Limit
from shoal.errors import Error, Timeout, Unavailable
from shoal.message import Header, Message
from shoal.middleware import Call
from shoal.registry import Node
from shoal.selector import GaveUp, Next
from shoal.wire import CLIENT

TRANSPORT = "shoal.transport"
Mark = Callable[[str, Node, "Exception | None", float], None]


@dataclass(slots=True, repr=False)
class Outgoing(Call):
    """A call or stream on its way through the middleware, with what it was asked for."""

    request: Request[Any] = None  # type: ignore[assignment]  # always given by `of`
    options: CallOptions = None  # type: ignore[assignment]  # always given by `of`
    when: float | None = None
    started: float = 0.0

    @classmethod
    def of(cls, request: Request[Any], options: CallOptions) -> Outgoing:
        """Return what a call or stream is before it meets the middleware."""
        call = cls("client", request.service, request.endpoint, request.message)
        call.request, call.options = request, options
        return call


class Target(Struct):
    """What all requests to an endpoint in one content type have in common."""

    shared: Header
    codec: Codec
    content_type: str
    enveloped: bool
    plain: Header | None = None
    """What a good reply shared with others: the next one that shares it is as good."""

    def read(self, reply: Message, into: Any) -> Any:
        """Return what a reply holds. Raises the error it carries, and BadRequest."""
        shared = reply.shared
        if shared is None or shared is not self.plain:
            body = wire.reply_body(reply, self.content_type, self.codec)
            self.plain = None if self.enveloped else shared
        else:
            body = reply.body
        return self.codec.decode(body, into)


@dataclass(slots=True, repr=False)
class Attempts:
    """What is known of the attempts of one call, of which one has failed."""

    request: Request[Any]
    options: CallOptions
    started: float
    limit: Limit
    given: list[str] | None
    """Ids of the nodes that this call and one beside it were given."""
    tried: Sequence[str] = ()
    """Ids of the nodes that another attempt should not go to."""
    node: Node | None = None
    """Where the last one went, or goes."""
    last: Error | None = None
    """What it failed with."""
    seen: tuple[str, ...] = ()
    """The addresses where others failed."""

    def __repr__(self) -> str:
        return f"Attempts({self.request.service} {self.request.endpoint}, {self.where()})"

    def where(self) -> str:
        """Return which attempt on which node this is, for a person."""
        if self.node is None:
            return "before a node was found"
        return f"attempt {len(self.tried) + 1} on {self.node.id} at {self.node.address}"

    def late(self, now: float) -> Timeout:
        """Return the error for a call whose time is over."""
        when = self.limit.when
        inherited = when == context.current.get().deadline
        whose = "the deadline of its caller" if inherited else "its timeout"
        return self._late(whose, when - self.started, now - self.started)

    def slow(self, begun: float, until: float, now: float) -> Timeout:
        """Return the error for an attempt whose own time is over."""
        error = self._late("its attempt_timeout", until - begun, now - begun)
        error.__suppress_context__ = True  # that it was cancelled is nothing else
        return error

    def _late(self, whose: str, seconds: float, passed: float) -> Timeout:
        request = self.request
        return Timeout(
            f"{request.service} {request.endpoint}: {whose} of {seconds:.3g} s"
            f" passed after {passed:.3f} s, {self.where()}",
            id=CLIENT,
        )

    def failed(self, error: Error) -> None:
        """Note that the attempt on `node` failed, and another one follows."""
        assert self.node is not None
        self.last = error
        self.seen = (*self.seen, self.node.address)
        self.tried = (*self.tried, self.node.id)

    def knows(self, node: Node) -> bool:
        """Whether no attempt on a node can go better than one before did."""
        return self.last is not None and self.last.unsent and node.address in self.seen

    def explain(self, error: Error, elapsed: float) -> None:
        """Add to an error that arose on this side which attempt it was and how long that took."""
        if error.id in ("", CLIENT, TRANSPORT) and isinstance(error, Unavailable):
            error.detail += f"; {self.where()} after {elapsed:.3f} s"


class Given(Next):
    """Chooses among addresses that the caller gave, in turn from a random one."""

    def __init__(self, addresses: Sequence[str]) -> None:
        first = random.randrange(len(addresses))
        self._addresses = [*addresses[first:], *addresses[:first]]

    def __call__(self, tried: Container[str] = ()) -> Node:
        fresh = (address for address in self._addresses if address not in tried)
        address = next(fresh, self._addresses[0])
        return Node(address, address, _MUCP)


_MUCP = {"protocol": "mucp"}


class Apart(Next, Container[str]):
    """Chooses for two attempts beside each other: one does not get the nodes of the other.

    Unless there is no other one. `given` are the ids of their nodes.
    """

    def __init__(self, choose: Next, given: list[str]) -> None:
        self._choose = choose
        self._given = given
        self._tried: Container[str] = ()

    def __call__(self, tried: Container[str] = ()) -> Node:
        self._tried = tried
        node = self._choose(self)
        self._given.append(node.id)
        return node

    def __contains__(self, id: Any) -> bool:
        return id in self._given or id in self._tried


def mark_nothing(service: str, node: Node, error: Exception | None, elapsed: float) -> None:
    """Nodes that no selector gave are not marked."""


def said(error: BaseException, limit: Limit) -> Exception:
    """Return what the end of an attempt says of its node: a caller who gives up says nothing."""
    if isinstance(error, Error):
        return error
    return Timeout(str(error), id=CLIENT) if limit.expired else GaveUp()


def sooner(when: float, deadline: float | None) -> float:
    """Return the sooner of two loop times, of which the second may not be set."""
    return when if deadline is None else min(when, deadline)


def within(limit: Limit, options: CallOptions, begun: float) -> Limit:
    """Return the limit of one attempt within that of all, which it may be; another has begun."""
    seconds = options.get("attempt_timeout")
    if seconds is None or begun + seconds >= limit.when:
        return limit
    attempt = limit.owner.until(begun + seconds)
    attempt.begin()
    return attempt


def cut(attempt: Limit, error: BaseException, now: float) -> bool:
    """Whether an attempt ended because its own time was over."""
    if attempt.end():
        return isinstance(error, asyncio.CancelledError)
    # The node may have been a little faster to say so.
    return isinstance(error, Timeout) and now >= attempt.when - TICK


def metadata_of(
    running: context.Context, options: CallOptions, added: Mapping[str, str]
) -> Mapping[str, str]:
    """Return the metadata of a call: what its context, its options and middleware say."""
    if running is context.NOTHING and not options and not added:
        return added
    own = context.checked(options.get("metadata") or {})
    return {**context.outgoing(running), **own, **added}
