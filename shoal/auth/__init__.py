"""Package auth tells who is calling, and who may call what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from shoal.auth._rules import Rules
from shoal.auth._token import Token, Tokens
from shoal.errors import Error, Forbidden, Unauthorized
from shoal.middleware import Call, Middleware, Next

ID = "shoal.auth"
HEADER = "Authorization"
SCHEME = "bearer "

PUBLIC = ""
"""Go Micro's scope for what everybody may do, known or not."""
ACCOUNT = "*"
"""Go Micro's scope for what every known caller may do."""


@dataclass(frozen=True, slots=True)
class Account:
    """Who is calling, as a token tells that was verified (Go Micro, auth.Account)."""

    id: str
    issuer: str = ""
    type: str = ""
    scopes: frozenset[str] = frozenset()
    metadata: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    claims: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    """All that the token says, as it says it."""


Verify = Callable[[str], Awaitable[Account]]
"""Returns whose a token is. Raises Unauthorized for one that is not good, and Unavailable if that
cannot be told now."""

_account: ContextVar[Account | None] = ContextVar("shoal.auth.account", default=None)


def account() -> Account:
    """Return who made the call that is running.

    Raises Unauthorized if that is not known, as where the rules let in everybody.
    """
    found = _account.get()
    if found is None:
        raise Unauthorized("who is calling is not known", id=ID)
    return found


def authorize(
    verify: Verify,
    rules: Mapping[str, str | Sequence[str]] | None = None,
    *,
    events: Mapping[str, str | Sequence[str]] | None = None,
) -> Middleware:
    """Return a middleware for servers that lets in who may, and tells handlers who it is.

    `rules` say by endpoint (`Greeter.Hello`, `Greeter.*` or `*`, the closest counts) which scope
    a caller needs, or which of several; what no rule names is denied. Without rules every known
    caller may do everything. `events` are the same for subscribers by topic; without them events
    are not looked at. A caller who is not known gets Unauthorized, one who may not, Forbidden.
    """
    calls = Rules({"*": ACCOUNT} if rules is None else rules)
    topics = None if events is None else Rules(events)

    async def authorized(call: Call, next: Next) -> Any:
        wanted = calls if call.side == "server" else topics
        if call.side == "server" or (call.side == "subscriber" and wanted is not None):
            assert wanted is not None
            allowed = wanted.of(call.endpoint)
            who = await _known(verify, call.header, required=PUBLIC not in allowed)
            if who is not None and not _may(who, allowed):
                raise Forbidden(f"{call.endpoint} is not allowed for {who.id!r}", id=ID)
            _account.set(who)  # what runs a call gives it a context of its own
        return await next(call)

    return authorized


def bearer(token: str | Callable[[], Awaitable[Token]], *, events: bool = False) -> Middleware:
    """Return a middleware for clients that calls with a token.

    It is the text itself, or a coroutine function that gets a Token, which is asked again before
    the time of the last one is over. Calls made while serving another then no longer pass on the
    token of that one. With `events` what is published carries it too; brokers may store it.
    """
    source = Tokens(token)
    sides = ("client", "publisher") if events else ("client",)

    async def with_token(call: Call, next: Next) -> Any:
        if call.side in sides:
            call.header[HEADER] = f"Bearer {await source.current()}"
        return await next(call)

    return with_token


async def _known(verify: Verify, header: Mapping[str, str], *, required: bool) -> Account | None:
    """Return who a header says is calling; if that is not required, None for nobody known."""
    value = header.get(HEADER, "")
    try:
        if value[: len(SCHEME)].lower() != SCHEME:
            what = "a token is needed" if not value else "the authorization is no bearer token"
            raise Unauthorized(f"{what}: Authorization: Bearer ...", id=ID)
        return await verify(value[len(SCHEME) :].strip())
    except Error:
        if required:
            raise
        return None


def _may(who: Account, allowed: frozenset[str]) -> bool:
    return PUBLIC in allowed or ACCOUNT in allowed or not who.scopes.isdisjoint(allowed)


__all__ = [
    "ACCOUNT",
    "PUBLIC",
    "Account",
    "Token",
    "Verify",
    "account",
    "authorize",
    "bearer",
]
