"""Module text carries a string."""

from __future__ import annotations

from types import NoneType
from typing import Any, TypeVar

import msgspec

from shoal.codec import Codec
from shoal.codec._hooks import name_of
from shoal.errors import BadRequest, InternalServerError

T = TypeVar("T")


class TextCodec(Codec):
    """A string as UTF-8 (Go Micro: codec/text)."""

    content_type = "text/plain"

    def encode(self, message: object) -> bytes:
        if isinstance(message, msgspec.Raw):
            return bytes(message)
        if not isinstance(message, str):
            raise InternalServerError(
                f"{self.content_type} carries str, no {type(message).__name__}: choose another"
                " content type"
            )
        try:
            return message.encode()
        except UnicodeEncodeError as error:
            raise InternalServerError(f"the text cannot be sent as UTF-8: {error}") from error

    def decode(self, data: bytes, into: type[T]) -> T:
        kind: Any = into
        try:
            if kind is msgspec.Raw:
                message: Any = msgspec.Raw(data)
            elif kind is NoneType:
                message = None
            elif kind in (str, object, Any):
                message = data.decode()
            else:
                raise BadRequest(
                    f"{self.content_type} carries str, {name_of(into)} is wanted here: send it as"
                    " application/json"
                )
        except UnicodeDecodeError as error:
            raise BadRequest(f"the text is no UTF-8: {error}") from error
        return message  # type: ignore[no-any-return]  # it is what into asks for
