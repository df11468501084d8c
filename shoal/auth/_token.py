"""Module _token is what a client shows to be known, and how it gets the next one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from shoal.auth._renewed import Fetched, Renewed


@dataclass(frozen=True, slots=True)
class Token:
    """A token and the seconds for which it can be used."""

    value: str = field(repr=False)
    seconds: float


class Tokens:
    """One token for ever, or one after another. Shows none of them."""

    def __init__(self, source: str | Callable[[], Awaitable[Token]]) -> None:
        self._static = source if isinstance(source, str) else ""
        self._renewed: Renewed[str] | None = None
        if not isinstance(source, str):
            get = source

            async def fetch() -> Fetched[str]:
                token = await get()
                return Fetched(token.value, token.seconds * 0.8, token.seconds)

            self._renewed = Renewed("the token for calls", fetch)
        elif not source:
            raise ValueError("an empty text is no token")

    def __repr__(self) -> str:
        return f"Tokens({self._renewed or 'one for ever'})"

    async def current(self) -> str:
        """Return the token to send now. Raises Unavailable if there is none to be had."""
        return self._static if self._renewed is None else await self._renewed.current()
