"""Module _envelope is the pair of functions by which a legacy format wraps bodies."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, slots=True)
class Envelope:
    """What the body of a legacy message holds: whom it is for, what went wrong, the body in it.

    The id has the type it had on the wire, so that a reply can repeat it.
    """

    id: str | int = ""
    method: str = ""
    error: str = ""
    body: bytes = b""


class Envelopes(NamedTuple):
    """The functions of a format. The unpacking ones raise BadRequest for what is no envelope."""

    pack_request: Callable[[str | int, str, bytes], bytes]
    """From id, method and body."""
    unpack_request: Callable[[bytes], Envelope]
    pack_response: Callable[[str | int, str, bytes], bytes]
    """From id, error (empty if there is none) and body."""
    unpack_response: Callable[[bytes], Envelope]
