"""Module _incoming is a request as the server sees it, and the errors it may end in."""

from __future__ import annotations

import logging
import uuid

from msgspec import Struct

from shoal.codec import Codec
from shoal.endpoints import Method
from shoal.errors import Error, InternalServerError, Timeout
from shoal.message import Header, shown

logger = logging.getLogger(__name__)


class Incoming(Struct):
    """A request as far as its headers and envelope tell."""

    method: Method
    codec: Codec
    header: dict[str, str]
    body: bytes
    shared: Header
    """What all good replies in its content type have in common."""
    id: str | int | None = None
    """Its id, of the type its legacy envelope has it in; None if there is no envelope."""

    def __repr__(self) -> str:
        return f"Incoming({self.method.name}, {shown(self.header)}, {len(self.body)} bytes)"


def late(name: str, seconds: float) -> Error:
    """Return the error for a handler whose time is over."""
    return Timeout(f"{name} was not done within the {seconds:.3g} s its caller gives it")


def unexpected(name: str, error: Exception) -> Error:
    """Log an error nobody foresaw and return what the caller may know of it."""
    correlation = uuid.uuid4().hex[:12]
    logger.error("%s failed, correlation id %s", name, correlation, exc_info=error)
    return InternalServerError(f"{name} failed unexpectedly, correlation id {correlation}")
