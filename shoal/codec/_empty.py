"""Module _empty is what an empty body means for a type hint."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from shoal.codec._hooks import MISFITS, from_plain, is_protobuf, name_of
from shoal.errors import BadRequest

# The first whose blank value the hint accepts; Go Micro leaves a message at its zero value.
_BLANKS: tuple[Callable[[], Any], ...] = (lambda: None, dict, list, str, int, bool)


def empty(hint: Any) -> Any:
    """Return the value of an empty body: None where it fits, else all defaults, else blank.

    Raises BadRequest naming the fields that have no default.
    """
    if hint is msgspec.Raw:
        return msgspec.Raw()
    if is_protobuf(hint):
        return hint()
    for blank in _BLANKS:
        try:
            return msgspec.convert(blank(), hint, dec_hook=from_plain)
        except MISFITS:
            continue
    raise BadRequest(f"the body is empty, {_needs(hint)}")


def _needs(hint: Any) -> str:
    fields = getattr(msgspec.inspect.type_info(hint), "fields", ())
    required = [field.encode_name for field in fields if field.required]
    if required:
        return f"{name_of(hint)} needs {', '.join(required)}"
    try:
        msgspec.convert({}, hint, dec_hook=from_plain)
    except MISFITS as error:
        return f"{name_of(hint)}: {error}"
    return f"{name_of(hint)} is expected"
