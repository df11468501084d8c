"""Package errors is how failures look in code and on the wire."""

from __future__ import annotations

import http
from typing import ClassVar

import msgspec


class Error(Exception):
    """A failure with a code (HTTP's numbers), a sentence and the id of who reported it.

    The class, code, detail and id that a handler raises are what the caller gets, in Python and
    in Go. Code 0 is an error of a Go peer that has only a text.
    """

    default_code: ClassVar[int] = 0

    unsent = False
    """True if the request has certainly not reached a handler, so that it can be sent again."""

    retry_after: float | None = None
    """Seconds after which it is worth trying again, where who refused has said so."""

    def __init__(self, detail: str = "", *, id: str = "", code: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.id = id
        self.code = self.default_code if code is None else code

    @property
    def status(self) -> str:
        """The phrase HTTP has for the code, empty if it has none."""
        return _status(self.code)

    def __str__(self) -> str:
        return self.detail or self.status

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.detail!r}, id={self.id!r}, code={self.code})"

    def __reduce__(self) -> tuple[object, ...]:
        return (from_parts, (self.id, self.code, self.detail))


class BadRequest(Error):
    """The request cannot be understood: 400."""

    default_code = 400


class Unauthorized(Error):
    """Who is calling is not known: 401."""

    default_code = 401


class Forbidden(Error):
    """Who is calling may not do this: 403."""

    default_code = 403


class NotFound(Error):
    """What was asked for does not exist: 404."""

    default_code = 404


class MethodNotAllowed(Error):
    """The endpoint cannot be used this way: 405."""

    default_code = 405


class Timeout(Error):  # not TimeoutError's subclass: it also arrives from the other side
    """The time for the call is over: 408."""

    default_code = 408


class Conflict(Error):
    """The state of things does not allow this: 409."""

    default_code = 409


class TooLarge(Error):
    """A message is larger than the limit: 413."""

    default_code = 413


class TooManyRequests(Error):
    """The limit of calls is reached, try later: 429."""

    default_code = 429


class InternalServerError(Error):
    """The handler failed in a way it did not foresee: 500."""

    default_code = 500


class Unimplemented(Error):
    """The peer does not have this: 501."""

    default_code = 501


class Unavailable(Error):
    """Nobody can be reached who could do this: 503."""

    default_code = 503


class ServiceNotFound(Unavailable):
    """The registry knows no node of the service."""

    unsent = True


class ConnectionClosed(Unavailable):
    """The peer is gone, or this side closed."""


_BY_CODE: dict[int, type[Error]] = {
    kind.default_code: kind
    for kind in (
        BadRequest,
        Unauthorized,
        Forbidden,
        NotFound,
        MethodNotAllowed,
        Timeout,
        Conflict,
        TooLarge,
        TooManyRequests,
        InternalServerError,
        Unimplemented,
        Unavailable,
    )
}


class _Wire(msgspec.Struct, omit_defaults=True):
    # Member order and omission of empty members are Go Micro's (errors.Error, v2 and later).
    id: str = ""
    code: int = 0
    detail: str = ""
    status: str = ""


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(_Wire, strict=False).decode


def from_parts(id: str, code: int, detail: str) -> Error:
    """Return an error of the class that stands for the code."""
    return _BY_CODE.get(code, Error)(detail, id=id, code=code)


def to_wire(error: Error) -> str:
    """Return the text of the `Micro-Error` header: Go Micro's JSON object, or the bare text.

    An error without a code stays a bare text, as Go sends a plain error.
    """
    if error.code == 0 and not error.id:
        return error.detail or "error"
    wire = _Wire(error.id, error.code, error.detail, error.status)
    try:
        return _encode(wire).decode()
    except UnicodeEncodeError:  # half a surrogate pair, which is no text
        wire.id, wire.detail = _text(wire.id), _text(wire.detail)
        return _encode(wire).decode()


def from_wire(text: str) -> Error:
    """Return the error a `Micro-Error` text stands for; text that is no JSON becomes the detail."""
    if text.startswith("{"):
        try:
            wire = _decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError, RecursionError):
            return Error(text)
        return from_parts(wire.id, wire.code, wire.detail or wire.status)
    return Error(text)


def _text(broken: str) -> str:
    return broken.encode("utf-8", "replace").decode()


def _status(code: int) -> str:
    try:
        return http.HTTPStatus(code).phrase
    except ValueError:
        return ""
