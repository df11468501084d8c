"""Module _exits is how a command ends when something went wrong: a sentence and a code."""

from __future__ import annotations

from shoal.errors import BadRequest, Error, Timeout, Unavailable
from shoal.plugins import PluginError
from shoal.tls import TlsError

FAILED = 1
USAGE = 2
NOT_FOUND = 3
ANSWERED = 4
TIMEOUT = 5
INTERRUPTED = 130
TERMINATED = 143


class Failure(Exception):
    """A sentence for the user, and the code the command exits with."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


def failure(error: Exception, about: str = "") -> Failure:
    """Return how a command ends that an exception stopped; `about` says what it was doing."""
    if isinstance(error, Failure):
        return error
    prefix = f"{about}: " if about else ""
    if isinstance(error, Error):
        return Failure(f"{prefix}{sentence(error)}", code(error))
    if isinstance(error, PluginError | TlsError):
        return Failure(str(error), USAGE)
    if isinstance(error, OSError):
        return Failure(f"{prefix}{error}")
    kind = type(error).__name__
    return Failure(f"{prefix}unexpected {kind}: {error} (--debug shows where)")


def sentence(error: Error) -> str:
    """Return an error's detail, with its code and the id of who reported it, if anybody did."""
    if not error.id:
        return str(error)
    return f"{error} ({error.code} {error.status} from {error.id})".replace("  ", " ")


def code(error: Error) -> int:
    """Return the exit code an error stands for."""
    if isinstance(error, Timeout):
        return TIMEOUT
    local = not error.id or error.id.startswith("shoal.")
    if isinstance(error, Unavailable) and local:
        return NOT_FOUND
    if is_unknown(error):
        return NOT_FOUND
    return USAGE if isinstance(error, BadRequest) and local else ANSWERED


def is_unknown(error: Error) -> bool:
    """Whether a server says that it does not have the endpoint (Go Micro v6, server/rpc_router)."""
    return error.detail.startswith("rpc: can't find ")
