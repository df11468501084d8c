"""Module bytes carries a body as it is."""

from __future__ import annotations

from types import NoneType
from typing import Any, TypeVar

import msgspec

from shoal.codec import Codec
from shoal.codec._hooks import name_of
from shoal.errors import BadRequest, InternalServerError

T = TypeVar("T")

_MAKE: dict[Any, Any] = {
    bytes: bytes,
    bytearray: bytearray,
    memoryview: memoryview,
    msgspec.Raw: msgspec.Raw,
    object: bytes,
    Any: bytes,
    NoneType: lambda data: None,
}


class BytesCodec(Codec):
    """Bytes in, the same bytes out (Go Micro: codec/bytes)."""

    content_type = "application/octet-stream"

    def encode(self, message: object) -> bytes:
        if isinstance(message, bytes | bytearray | memoryview | msgspec.Raw):
            return bytes(message)
        raise InternalServerError(
            f"{self.content_type} carries bytes, no {type(message).__name__}: encode it, or"
            " choose another content type"
        )

    def decode(self, data: bytes, into: type[T]) -> T:
        try:
            make = _MAKE[into]
        except (KeyError, TypeError):  # TypeError: a hint that cannot be hashed
            raise BadRequest(
                f"{self.content_type} carries bytes, {name_of(into)} is wanted here: send it as"
                " application/json or application/protobuf"
            ) from None
        return make(data)  # type: ignore[no-any-return]  # the table has into's own
