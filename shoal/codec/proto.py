"""Module proto carries protobuf messages, without importing protobuf itself."""

from __future__ import annotations

from types import NoneType
from typing import Any, TypeVar, get_args

import msgspec

from shoal.codec import Codec, _tagged
from shoal.codec._hooks import is_protobuf, name_of
from shoal.errors import BadRequest, InternalServerError

T = TypeVar("T")


class ProtoCodec(Codec):
    """A protobuf message without any framing; an empty body is an empty message.

    Dataclasses whose fields carry their numbers (`metadata={"proto": 1}`) travel too, without the
    protobuf library.
    """

    content_type = "application/protobuf"

    def encode(self, message: object) -> bytes:
        kind = type(message)
        try:
            if is_protobuf(kind):
                body: bytes = message.SerializeToString()  # type: ignore[attr-defined]  # is_protobuf
                return body
            if _tagged.is_tagged(kind):
                return _tagged.encode(message)
        except Exception as error:  # protobuf's EncodeError, without importing it
            raise InternalServerError(
                f"{kind.__name__} cannot be sent as {self.content_type}: {error}"
            ) from error
        if message is None:
            return b""
        if isinstance(message, msgspec.Raw):
            return bytes(message)
        raise InternalServerError(
            f"{self.content_type} carries protobuf messages, {kind.__name__} is none: send it as"
            " application/json, or make it a protobuf message"
        )

    def decode(self, data: bytes, into: type[T]) -> T:
        message: Any = self._parse(data, into)
        return message  # type: ignore[no-any-return]  # it is what into asks for

    def _parse(self, data: bytes, into: Any) -> Any:
        try:
            if is_protobuf(into):
                return into.FromString(data)
            if _tagged.is_tagged(into):
                return _tagged.decode(data, into)
        except Exception as error:  # protobuf's DecodeError, without importing it
            raise BadRequest(f"the body is no {name_of(into)}: {error}") from error
        if into is msgspec.Raw:
            return msgspec.Raw(data)
        if into is None or into is NoneType:
            return None
        some = [kind for kind in get_args(into) if is_protobuf(kind) or _tagged.is_tagged(kind)]
        if len(some) == 1 and NoneType in get_args(into):
            return self._parse(data, some[0])
        raise BadRequest(
            f"{self.content_type} carries protobuf messages, {name_of(into)} is none: send it as"
            " application/json"
        )
