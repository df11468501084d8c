"""Module _typed is what the codecs that decode straight into a type hint share."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Callable
from types import NoneType
from typing import Any, TypeVar

import msgspec

from shoal.codec import Codec
from shoal.codec._empty import empty
from shoal.codec._hooks import MISFITS, UnknownTypeError, from_plain, name_of
from shoal.codec._lenient import fit, may_help
from shoal.errors import BadRequest, InternalServerError

T = TypeVar("T")

_CACHE_LIMIT = 4096
_MISSING = re.compile(r"Object missing required field `(.+?)`")
_PLACE = re.compile(r" - at (`key` in )?`\$?(.*)`$", re.DOTALL)


class Typed(Codec):
    """Keeps one decoder for each type hint; `decode` is a look-up and a call."""

    def __init__(self) -> None:
        self._decoders: dict[Any, Callable[[bytes], Any]] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.content_type}, {len(self._decoders)} types)"

    def decode(self, data: bytes, into: type[T]) -> T:
        try:
            decode = self._decoders[into]
        except (KeyError, TypeError):  # TypeError: a hint that cannot be hashed
            decode = self._remember(into)
        try:
            return decode(data)  # type: ignore[no-any-return]  # the decoder is into's own
        except (*MISFITS, UnknownTypeError) as error:
            return self._again(data, into, error)  # type: ignore[no-any-return]  # as above

    @abstractmethod
    def _decoder(self, hint: Any) -> Callable[[bytes], Any]:
        """Return what decodes a body into the hint."""

    @abstractmethod
    def _plain(self, data: bytes) -> Any:
        """Return what a body holds as dicts, lists and strings."""

    def _remember(self, hint: Any) -> Callable[[bytes], Any]:
        try:
            decode = _ignore if hint in (None, NoneType) else self._decoder(hint)
        except Exception as error:  # msgspec evaluates the type hints of a class here
            raise self._unsupported(hint, error) from error
        try:
            if len(self._decoders) < _CACHE_LIMIT:  # classes made at run time must not pile up
                self._decoders[hint] = decode
        except TypeError:
            pass  # a hint that cannot be hashed costs a new decoder each time
        return decode

    def _again(self, data: bytes, hint: Any, error: Exception) -> Any:
        """Return the message for a body that did not fit at once; raises if it really does not."""
        try:
            if not data:
                return empty(hint)
            if may_help(str(error)):
                value = self._plain(data)
                if value is None:  # to Go the same as no body
                    return empty(hint)
                value = fit(value, msgspec.inspect.type_info(hint))
                return msgspec.convert(value, hint, dec_hook=from_plain, str_keys=True)
        except (*MISFITS, UnknownTypeError) as second:
            error = second
        if isinstance(error, UnknownTypeError):
            raise self._unsupported(hint, error) from error
        raise BadRequest(_complaint(name_of(hint), error)) from error

    def _unsupported(self, hint: Any, error: Exception) -> InternalServerError:
        return InternalServerError(
            f"{self.content_type} cannot be read into {name_of(hint)}: {error}"
        )

    def _refused(self, message: object, error: Exception) -> InternalServerError:
        name = type(message).__name__
        return InternalServerError(f"{name} cannot be sent as {self.content_type}: {error}")


def _ignore(data: bytes) -> None:
    """Whoever hints None wants nothing; Go Micro's handlers always reply an object."""


def _complaint(name: str, error: Exception) -> str:
    """Return msgspec's sentence, the place first: `Request.items[3].name: expected str`."""
    if isinstance(error, RecursionError):
        return f"{name}: the message is nested too deeply"
    if not isinstance(error, msgspec.ValidationError):
        return f"{name}: the body cannot be read: {error}"
    text, place = str(error), ""
    if found := _PLACE.search(text):
        text, place = text[: found.start()], found[2] + (".<key>" if found[1] else "")
    if found := _MISSING.fullmatch(text):
        return f"{name}{place}.{found[1]} is missing"
    text = text.replace("`", "")
    return f"{name}{place}: {text[:1].lower()}{text[1:]}"
