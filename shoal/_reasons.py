"""Module _reasons finds the words of the system for why a connection failed."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator

_DEEP = 10  # causes of causes


def reason(error: BaseException) -> str:
    """Return why something failed, for a person: `Connection refused`, whatever wrapped it."""
    words = [text for one in causes(error) if (text := _words(one))]
    return words[-1] if words else type(error).__name__


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what it came of; of several at once the first."""
    seen: BaseException | None = error
    for _ in range(_DEEP):
        if seen is None:
            return
        if isinstance(seen, BaseExceptionGroup):
            seen = seen.exceptions[0]
            continue
        yield seen
        seen = seen.__cause__ or seen.__context__


def _words(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return str(error)
    if isinstance(error, OSError) and (error.errno or 0) > 0:
        return os.strerror(error.errno or 0)  # asyncio's own words for it are longer
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error)
