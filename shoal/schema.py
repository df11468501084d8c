"""Package schema is the shape of types and the meaning of docstrings, as registries tell them.

Source: Go Micro v6, server/extractor.go and server/comments.go: what Go's tools read.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import msgspec.inspect as kinds

from shoal.codec._hooks import is_protobuf, is_pydantic
from shoal.registry import Value

_DEPTH = 3  # Go Micro leaves out what is nested deeper
_DESCRIPTION_LIMIT = 200  # characters; longer docstrings are cut to their first sentence

_EXAMPLE = re.compile(r"@example\s+(.+?)(?:\n[ \t]*\n|\Z)", re.DOTALL)
_SENTENCE = re.compile(r"(?s).+?(?<![^A-Z][A-Z])[.!?](?=\s|$)")

_SIMPLE = {
    kinds.BoolType: "bool",
    kinds.IntType: "int64",
    kinds.FloatType: "float64",
    kinds.StrType: "string",
    kinds.DateTimeType: "string",  # what it is in a message; Go's tools show a Time as an object
    kinds.DateType: "string",
    kinds.TimeType: "string",
    kinds.TimeDeltaType: "string",
    kinds.UUIDType: "string",
    kinds.DecimalType: "string",
    kinds.BytesType: "[]uint8",
    kinds.ByteArrayType: "[]uint8",
    kinds.MemoryViewType: "[]uint8",
}
_LISTS = (kinds.ListType, kinds.SetType, kinds.FrozenSetType, kinds.VarTupleType)
_ROWS = (kinds.TupleType, kinds.NamedTupleType)
_OBJECTS = (kinds.DataclassType, kinds.StructType, kinds.TypedDictType)

_Shape = tuple[str, tuple[Value, ...]]  # the type's name and its fields
_NAMELESS: _Shape = ("", ())

# google.protobuf.FieldDescriptor.type: the numbers stand in descriptor.proto.
_PROTOBUF = {
    1: "float64",
    2: "float32",
    3: "int64",
    4: "uint64",
    5: "int32",
    6: "uint64",
    7: "uint32",
    8: "bool",
    9: "string",
    12: "[]uint8",
    13: "uint32",
    15: "int32",
    16: "int64",
    17: "int32",
    18: "int64",
}


def value(hint: Any, name: str | None = None) -> Value:
    """Return the shape of a type hint in Go's words: `string`, `int64`, `[]Item`, a class's name.

    A class has its fields as values, three levels deep. What Go has no name for (dict, Any, a
    union) has an empty type. The name is the type's own if none is given.
    """
    type_name, values = _of_hint(hint, 0)
    if name is None:
        name = type_name if type_name.isidentifier() else ""
    return Value(name, type_name, values)


def description(doc: str) -> str:
    """Return what a docstring says of a method, its first sentence if it says much."""
    text = _EXAMPLE.sub("", inspect.cleandoc(doc)).strip()
    if len(text) <= _DESCRIPTION_LIMIT:
        return text
    paragraph = " ".join(text.partition("\n\n")[0].split())
    sentence = _SENTENCE.match(paragraph)
    return sentence[0] if sentence else paragraph


def example(doc: str) -> str:
    """Return the example request a docstring gives after `@example`, empty if there is none."""
    found = _EXAMPLE.search(inspect.cleandoc(doc))
    return found[1].strip() if found else ""


def _of_hint(hint: Any, depth: int) -> _Shape:
    if is_protobuf(hint):
        return _of_descriptor(hint.DESCRIPTOR, depth)
    if is_pydantic(hint):
        fields = [(one.alias or name, one.annotation) for name, one in hint.model_fields.items()]
        return hint.__name__, _values(fields, depth, _of_hint)
    try:
        info = kinds.type_info(hint)
    except Exception:  # a codec of somebody else's may know what to do with it
        return getattr(hint, "__name__", ""), ()
    return _of_info(info, depth)


def _of_info(info: kinds.Type, depth: int) -> _Shape:
    """Return the shape of a type as msgspec sees it."""
    if simple := _SIMPLE.get(type(info)):
        return simple, ()
    if isinstance(info, kinds.UnionType):
        some = [kind for kind in info.types if not isinstance(kind, kinds.NoneType)]
        return _of_info(some[0], depth) if len(some) == 1 else _NAMELESS
    if isinstance(info, _LISTS):
        return _list(_of_info(info.item_type, _DEPTH)[0]), ()
    if isinstance(info, _ROWS) or (isinstance(info, kinds.StructType) and info.array_like):
        return "[]", ()
    if isinstance(info, _OBJECTS):
        fields = [(field.encode_name, field.type) for field in info.fields]
        return info.cls.__name__, _values(fields, depth, _of_info)
    if isinstance(info, kinds.EnumType):
        return _constants([member.value for member in info.cls])
    if isinstance(info, kinds.LiteralType):
        return _constants(list(info.values))
    if isinstance(info, kinds.CustomType) and info.cls is not object:
        known = is_protobuf(info.cls) or is_pydantic(info.cls)
        return _of_hint(info.cls, depth) if known else (info.cls.__name__, ())
    return _NAMELESS


def _values(
    fields: list[tuple[str, Any]], depth: int, of: Callable[[Any, int], _Shape]
) -> tuple[Value, ...]:
    if depth + 1 >= _DEPTH:
        return ()
    return tuple(Value(name, *of(kind, depth + 1)) for name, kind in fields)


def _list(element: str) -> str:
    return f"[]{element}" if element.isidentifier() else "[]"


def _constants(values: list[Any]) -> _Shape:
    for kind, name in ((str, "string"), (int, "int64")):
        if values and all(isinstance(one, kind) for one in values):
            return name, ()
    return _NAMELESS


def _of_descriptor(descriptor: Any, depth: int) -> _Shape:
    """Return the shape of a protobuf message: its own field names, as in the tags Go generates."""
    fields = [(field.name, field) for field in descriptor.fields]
    return _go_name(descriptor), _values(fields, depth, _of_field)


def _of_field(field: Any, depth: int) -> _Shape:
    message, enum = field.message_type, field.enum_type
    if message is not None and message.GetOptions().map_entry:
        return _NAMELESS
    repeated = field.is_repeated if hasattr(field, "is_repeated") else field.label == 3
    if message is not None:
        return (_list(_go_name(message)), ()) if repeated else _of_descriptor(message, depth)
    name = _go_name(enum) if enum is not None else _PROTOBUF[field.type]
    return (_list(name) if repeated else name), ()


def _go_name(descriptor: Any) -> str:
    """Return the name of the Go type: a message inside another is `Outer_Inner`."""
    package = descriptor.file.package
    name: str = descriptor.full_name.removeprefix(f"{package}." if package else "")
    return name.replace(".", "_")
