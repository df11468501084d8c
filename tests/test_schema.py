"""Tests of the shapes and descriptions registries tell."""

from __future__ import annotations

import datetime
import enum
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import GenericAlias
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, TypedDict, TypeVar

import msgspec
import pydantic
import pytest

from shoal import schema
from shoal.registry import Value
from tests.codec.greeter import message

T = TypeVar("T")


@dataclass
class Deep:
    too_deep: int


@dataclass
class Sub:
    A: bool
    deep: Deep


@dataclass
class Req:
    """The struct of Go that was observed, in Python."""

    name: str
    tags: list[str]
    sub: Sub | None
    M: dict[str, str]
    N: int


@dataclass
class Chain:
    next: Chain | None
    all: list[Chain]


class Renamed(msgspec.Struct, rename="camel"):
    country_code: str


class Row(msgspec.Struct, array_like=True):
    a: int


class Point(TypedDict):
    x: float


class Pair(NamedTuple):
    a: int
    b: str


class Person(pydantic.BaseModel):
    name: str = pydantic.Field(alias="fullName")
    friends: list[Person] = []
    home: Sub | None = None


class Mood(enum.Enum):
    CALM = "calm"


class Level(enum.IntEnum):
    LOW = 1


class Odd(enum.Enum):
    A = 1
    B = "b"


@dataclass
class Box(Generic[T]):
    content: T


class Plain:
    pass


Name = NewType("Name", str)


def test_a_dataclass_looks_like_the_struct_of_go() -> None:
    # Observed from Go Micro v6.10; at the third level nothing is told any more.
    assert schema.value(Req) == Value(
        "Req",
        "Req",
        (
            Value("name", "string"),
            Value("tags", "[]string"),
            Value("sub", "Sub", (Value("A", "bool"), Value("deep", "Deep"))),
            Value("M", ""),
            Value("N", "int64"),
        ),
    )


@pytest.mark.parametrize(
    ("hint", "name"),
    [
        (str, "string"),
        (int, "int64"),
        (float, "float64"),
        (bool, "bool"),
        (bytes, "[]uint8"),
        (bytearray, "[]uint8"),
        (list[str], "[]string"),
        (list[Deep], "[]Deep"),
        (list[Deep | None], "[]Deep"),
        (list[list[int]], "[]"),
        (list[dict[str, int]], "[]"),
        (list, "[]"),
        (set[int], "[]int64"),
        (tuple[int, ...], "[]int64"),
        (tuple[int, str], "[]"),
        (Sequence[str], "[]string"),
        (Mapping[str, int], ""),
        (dict, ""),
        (dict[str, int], ""),
        (Any, ""),
        (object, ""),
        (None, ""),
        (int | str, ""),
        (int | None, "int64"),
        (Annotated[int, "seconds"], "int64"),
        (Name, "string"),
        (Literal["a", "b"], "string"),
        (Literal[1, 2], "int64"),
        (Mood, "string"),
        (Level, "int64"),
        (Odd, "Odd"),
        (datetime.datetime, "string"),
        (uuid.UUID, "string"),
        (Pair, "[]"),
        (Row, "[]"),
        (msgspec.Raw, ""),
        (Plain, "Plain"),
        (Iterator, "Iterator"),
        ("Unknown", ""),
        (GenericAlias(list, (message("Place"),)), "[]Place"),
    ],
)
def test_types_have_the_names_of_go(hint: Any, name: str) -> None:
    value = schema.value(hint)
    assert (value.type, value.values) == (name, ())
    assert value.name == ("" if name.startswith("[]") else name)


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        (Renamed, Value("Renamed", "Renamed", (Value("countryCode", "string"),))),
        (Point, Value("Point", "Point", (Value("x", "float64"),))),
        (Box[int], Value("Box", "Box", (Value("content", "int64"),))),
        (
            Person,
            Value(
                "Person",
                "Person",
                (
                    Value("fullName", "string"),
                    Value("friends", "[]Person"),
                    Value("home", "Sub", (Value("A", "bool"), Value("deep", "Deep"))),
                ),
            ),
        ),
    ],
)
def test_fields_have_the_names_they_have_on_the_wire(hint: Any, expected: Value) -> None:
    assert schema.value(hint) == expected


def test_a_type_inside_itself_ends() -> None:
    inner = (Value("next", "Chain"), Value("all", "[]Chain"))
    middle = (Value("next", "Chain", inner), Value("all", "[]Chain"))
    assert schema.value(Chain) == Value("Chain", "Chain", middle)


def test_a_name_can_be_given() -> None:
    assert schema.value(str, "city") == Value("city", "string")
    assert schema.value(str, name="") == Value("", "string")


def test_a_protobuf_message_looks_like_the_struct_protoc_makes() -> None:
    place = (Value("city", "string"), Value("country_code", "string"))
    assert schema.value(message("HelloReply")).values[1].type == "HelloRequest"
    assert schema.value(message("HelloRequest")) == Value(
        "HelloRequest",
        "HelloRequest",
        (
            Value("name", "string"),
            Value("big_number", "int64"),
            Value("blob", "[]uint8"),
            Value("tags", "[]string"),
            Value("place", "Place", place),
            Value("counts", ""),
            Value("loud", "bool"),
            Value("ratio", "float64"),
            Value("mood", "Mood"),
            Value("visited", "[]Place"),
        ),
    )


def test_a_protobuf_message_inside_another_has_the_name_of_go() -> None:
    from google.protobuf import descriptor_pb2

    shape = schema.value(descriptor_pb2.DescriptorProto)
    types = {value.name: value.type for value in shape.values}
    assert types["extension_range"] == "[]DescriptorProto_ExtensionRange"
    assert types["nested_type"] == "[]DescriptorProto"


# Docstrings

LONG = "It does a lot of things that are told at length here. " * 5


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        ("", ""),
        ("Says hello.", "Says hello."),
        ("  Says hello.\n\n    To all who ask.\n", "Says hello.\n\nTo all who ask."),
        ('Says hello.\n\n    @example {"name": "John"}\n\n    Twice.', "Says hello.\n\nTwice."),
        (f"Says hello\nto all. {LONG}", "Says hello to all."),
        (f"Greets J. Smith v1.2 now. {LONG}", "Greets J. Smith v1.2 now."),
        (f"No sentence here\n\n{LONG}", "No sentence here"),
        ("x" * 201, "x" * 201),
    ],
)
def test_a_description_is_short(doc: str, expected: str) -> None:
    assert schema.description(doc).replace("\n\n\n", "\n") == expected


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        ("", ""),
        ("Says hello.", ""),
        ('Says hello.\n\n    @example {"name": "John"}', '{"name": "John"}'),
        ('@example\n    {"name":\n     "John"}\n\n    More.', '{"name":\n "John"}'),
    ],
)
def test_an_example_is_what_follows_its_word(doc: str, expected: str) -> None:
    assert schema.example(doc) == expected
