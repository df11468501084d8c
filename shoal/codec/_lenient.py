"""Module _lenient brings what Go and proto3 JSON write into the form a type hint asks for.

Go writes null for a nil slice, map or pointer, and reads null as "leave it as it is"; proto3 JSON
writes 64-bit integers as strings. This runs only for messages that did not fit as they were.
"""

from __future__ import annotations

import re
from typing import Any

from msgspec import inspect

_NULL = re.compile("got `(?:null|None)`")  # JSON's and MessagePack's word for it
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_LISTS = (inspect.ListType, inspect.SetType, inspect.FrozenSetType, inspect.VarTupleType)
_OBJECTS = (inspect.DataclassType, inspect.StructType, inspect.TypedDictType)


def may_help(complaint: str) -> bool:
    """Whether what msgspec complains of is something `fit` knows."""
    return _NULL.search(complaint) is not None or ("`int" in complaint and "got `str`" in complaint)


def fit(value: Any, info: inspect.Type) -> Any:
    """Return the value in the form its type has; what cannot be helped stays as it is."""
    if isinstance(info, inspect.UnionType):
        kinds = [kind for kind in info.types if not isinstance(kind, inspect.NoneType)]
        return fit(value, kinds[0]) if value is not None and len(kinds) == 1 else value
    if isinstance(info, inspect.IntType):
        return int(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else value
    if isinstance(info, _LISTS):
        if value is None:
            return []
        if isinstance(value, list):
            return [fit(item, info.item_type) for item in value]
    if isinstance(info, inspect.DictType):
        if value is None:
            return {}
        if isinstance(value, dict):
            return {key: fit(item, info.value_type) for key, item in value.items()}
    if isinstance(info, _OBJECTS) and isinstance(value, dict):
        return _object(value, info.fields)
    return value


def _object(value: dict[str, Any], fields: tuple[inspect.Field, ...]) -> dict[str, Any]:
    result = dict(value)
    for field in fields:
        name = field.encode_name
        if name not in result:
            continue
        item = result[name]
        if item is not None:
            result[name] = fit(item, field.type)
        elif not _nullable(field.type):
            if field.required:
                result[name] = fit(None, field.type)
            else:
                del result[name]
    return result


def _nullable(info: inspect.Type) -> bool:
    if isinstance(info, inspect.UnionType):
        return any(_nullable(kind) for kind in info.types)
    return isinstance(info, inspect.AnyType | inspect.NoneType | inspect.CustomType)
