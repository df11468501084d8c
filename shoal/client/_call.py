"""Module _call is what the attempts of one call, or the opening of one stream, have in common."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec import Struct

from shoal import context, wire
from shoal.client import CallOptions, Request
from shoal.codec import Codec
from shoal.deadlines import TICK, Deadlines, Limit
from shoal.errors import Error, Timeout, Unavailable
from shoal.message import Header, Message
from shoal.middleware import Call
from shoal.registry import Node
from shoal.selector import GaveUp, Next
from shoal.transport import Socket
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


class Attempts(Limit, kw_only=True):
    """What the attempts of one call have in common, which must be over at loop time `when`."""

    request: Request[Any]
    options: CallOptions
    metadata: Mapping[str, str]
    started: float
    until: float
    """Loop time at which the attempt that runs must be over; at most `when`."""
    timeout: str = ""
    """What `Timeout` says if the attempt has just started, where that is known."""
    node: Node | None = None
    tried: Sequence[str] = ()
    """Ids of the nodes on which an attempt has failed."""
    last: Error | None = None
    """What the last of them failed with."""
    seen: tuple[str, ...] = ()
    """Their addresses."""
    target: Target | None = None
    message: Message | None = None
    socket: Socket | None = None
    """What the attempt that runs has for itself."""
    inherited: bool = False
    """Whether `when` is the deadline of the caller, rather than the call's own."""

    def __repr__(self) -> str:
        return f"Attempts({self.request.service} {self.request.endpoint}, {self.where()})"

    def where(self) -> str:
        """Return which attempt on which node this is, for a person."""
        if self.node is None:
            return "before a node was found"
        return f"attempt {len(self.tried) + 1} on {self.node.id} at {self.node.address}"

    def late(self, now: float) -> Timeout:
        """Return the error for a call whose time is over."""
        request = self.request
        which = "the deadline of its caller" if self.inherited else "its timeout"
        return Timeout(
            f"{request.service} {request.endpoint}: {which} of {self.when - self.started:.3g} s"
            f" passed after {now - self.started:.3f} s, {self.where()}",
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


def mark_nothing(service: str, node: Node, error: Exception | None, elapsed: float) -> None:
    """Nodes that no selector gave are not marked."""


def said(error: BaseException, attempts: Attempts) -> Exception:
    """Return what the end of an attempt says of its node: a caller who gives up says nothing."""
    if isinstance(error, Error):
        return error
    return Timeout(str(error), id=CLIENT) if attempts.expired else GaveUp()


async def timed(
    deadlines: Deadlines, exchange: Awaitable[Any], attempts: Attempts, now: float
) -> Any:
    """Run an attempt, which `exchange` does, within its own time limit."""
    request = attempts.request
    seconds = attempts.options.get("attempt_timeout", attempts.when - now)
    attempts.until = min(attempts.when, now + seconds)
    if attempts.until == attempts.when:
        return await exchange
    limit = deadlines.until(attempts.until)
    try:
        with limit:
            return await exchange
    except TimeoutError:
        if not limit.expired:
            raise
    except Timeout:
        if deadlines.loop.time() < attempts.until - TICK:
            raise
        # else the node was a little faster to say that its time is over
    raise Timeout(
        f"{request.service} {request.endpoint}: its attempt_timeout of {seconds:.3g} s passed"
        f" after {deadlines.loop.time() - now:.3f} s, {attempts.where()}",
        id=CLIENT,
    )


def metadata_of(
    running: context.Context, options: CallOptions, added: Mapping[str, str]
) -> Mapping[str, str]:
    """Return the metadata of a call: what its context, its options and middleware say."""
    if running is context.NOTHING and not options and not added:
        return added
    own = context.checked(options.get("metadata") or {})
    return {**context.outgoing(running), **own, **added}
