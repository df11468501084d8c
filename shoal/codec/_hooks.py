"""Module _hooks carries what msgspec does not know: protobuf messages and pydantic models.

Neither library is imported before an object or a type hint of theirs is met.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

_MODULES = re.compile(r"\b(?:\w+\.)+(?=\w)")


# What msgspec raises: its own errors are no ValueErrors in some versions, and a TypeError is a key
# that cannot be hashed, or an object that cannot be encoded.
MISFITS = (msgspec.MsgspecError, ValueError, TypeError, RecursionError)


class UnknownTypeError(Exception):
    """A type hint names a class that no codec can fill."""


def is_protobuf(kind: object) -> bool:
    """Whether a type hint is a protobuf message class, of any major version of protobuf."""
    return hasattr(kind, "DESCRIPTOR") and hasattr(kind, "SerializeToString")


def is_pydantic(kind: object) -> bool:
    """Whether a type hint is a pydantic model class."""
    return hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_validate")


def name_of(hint: Any) -> str:
    """Return a type hint as a person would write it."""
    if isinstance(hint, type) and not hasattr(hint, "__origin__"):  # list[int] passes for a type
        return hint.__name__
    return _MODULES.sub("", str(hint))


def to_plain(message: Any) -> Any:
    """Return an object as dicts, lists and strings. Raises TypeError for one of unknown kind.

    Protobuf messages take the proto3 JSON form (camelCase names, 64-bit integers as strings, zero
    fields left out), as Go Micro v6 writes them.
    """
    if is_protobuf(type(message)):
        from google.protobuf import json_format

        try:
            return json_format.MessageToDict(message)
        except (json_format.Error, TypeError) as error:
            raise ValueError(str(error)) from error
    if is_pydantic(type(message)):
        return message.model_dump(mode="json", by_alias=True)
    raise TypeError(f"{type(message).__name__} is no message type, make it a dataclass")


def from_plain(kind: Any, value: Any) -> Any:
    """Return an object of a type msgspec does not know, from dicts, lists and strings.

    Raises ValueError naming the fields that do not fit, UnknownTypeError if nobody knows the type.
    """
    if kind is object:
        return value
    if is_protobuf(kind):
        return _protobuf(kind, value)
    if is_pydantic(kind):
        return _pydantic(kind, value)
    raise UnknownTypeError(f"{name_of(kind)} is no message type, make it a dataclass")


def _protobuf(kind: Any, value: Any) -> Any:
    from google.protobuf import json_format

    # Some of protobuf's own types are no objects in JSON: Timestamp, Value, the wrappers.
    if not isinstance(value, dict) and not kind.DESCRIPTOR.full_name.startswith("google.protobuf."):
        raise ValueError(f"expected object, got {type(value).__name__}")
    try:
        return json_format.ParseDict(value, kind())
    except (json_format.ParseError, AttributeError, TypeError) as error:
        # The other two are its way to say that a part of the message is of the wrong kind.
        raise ValueError(str(error).partition("\n")[0]) from error


def _pydantic(kind: Any, value: Any) -> Any:
    from pydantic import ValidationError

    try:
        return kind.model_validate(value)
    except ValidationError as error:
        raise ValueError(
            "; ".join(f"{_path(one['loc'])}{one['msg']}" for one in error.errors()[:20])
        ) from error


def _path(location: tuple[int | str, ...]) -> str:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return f"{text.lstrip('.')}: " if text else ""
