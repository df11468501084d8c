"""Tests of the JSON codec."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import timeit
from collections.abc import Callable, Iterator
from types import GenericAlias
from typing import Annotated, Any, TypedDict

import msgspec
import pydantic
import pytest

from shoal.codec import Codec
from shoal.codec.json import JsonCodec
from shoal.errors import BadRequest, InternalServerError, NotFound
from shoal.testing.conformance.codec import TYPED, CodecConformance, Defaults, Item, Order
from tests.codec.greeter import full_request, message


class Needy(TypedDict):
    x: int


class Person(pydantic.BaseModel):
    name: str
    home_town: str = pydantic.Field(default="", alias="homeTown")
    tags: list[str] = []


class Plain:
    pass


@dataclasses.dataclass
class Careful:
    age: int

    def __post_init__(self) -> None:
        if self.age < 0:
            raise ValueError("age cannot be negative")
        if self.age > 200:
            raise NotFound("nobody is that old")


@dataclasses.dataclass
class Mixed:
    people: list[Person]
    item: Item | None = None


BLANKS: tuple[tuple[Any, Any], ...] = (
    (Defaults, Defaults()),
    (Any, None),
    (object, None),
    (Order | None, None),
    (type(None), None),
    (dict, {}),
    (dict[str, int], {}),
    (list[int], []),
    (set[int], set()),
    (str, ""),
    (int, 0),
    (float, 0.0),
    (bool, False),
    (bytes, b""),
)


class TestConformance(CodecConformance):
    content_type = "application/json"
    samples = (
        *TYPED,
        (full_request(), message("HelloRequest")),
        ([full_request()], GenericAlias(list, (message("HelloRequest"),))),
        (Person(name="x", homeTown="y"), Person),
        (Mixed([Person(name="x")], Item("y")), Mixed),
    )
    empty = (*BLANKS, (message("HelloRequest"), message("HelloRequest")()))
    needy = ((Order, "id, items"), (Needy, "x"), (Person, "name"))
    refused = (object(), {"a": Plain()}, {(1, 2): 3}, "\ud800", Plain)
    refused_types = (Plain, Iterator, "Order", Order | Item)
    broken = (
        (b"[", list),
        (b"{}{}", dict),
        (b"1 2", int),
        (b"NaN", float),
        (b"Infinity", Any),
        (b"1e999", float),
        (b"9" * 5000, int),
        (b'"\xff"', str),
        (b"\xff", Any),
        (b'"\\ud800"', str),
        (b"\x00", Any),
        (b" ", Any),
    )
    big = ([Item(f"item {i}") for i in range(40_000)], list[Item])

    def make(self) -> Codec:
        return JsonCodec()


def complaint(body: bytes, hint: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        JsonCodec().decode(body, hint)
    return caught.value.detail


def test_the_bytes_are_those_of_go() -> None:
    # Captured from Go Micro v6.10: {"name":"John"} and a line feed.
    codec = JsonCodec()
    assert codec.encode({"name": "John"}) == b'{"name":"John"}\n'
    assert codec.encode(Item("a", 0.5)) == b'{"name":"a","price":0.5}\n'
    assert codec.encode(None) == b"null\n"


@pytest.mark.parametrize(
    ("body", "hint", "expected"),
    [
        (
            b'{"id":1,"items":[{"name":"a"},{"name":2}]}',
            Order,
            "Order.items[1].name: expected str, got int",
        ),
        (b'{"id":1,"items":[{}]}', Order, "Order.items[0].name is missing"),
        (b'{"id":1}', Order, "Order.items is missing"),
        (b'{"k":{"name":1}}', dict[str, Item], "dict[str, Item][...].name: expected str, got int"),
        (b'{"k":1}', dict[int, int], "dict[int, int].<key>: expected int, got str"),
        (b'{"id":1,"items":[],"mood":"x"}', Order, "Order.mood: invalid enum value 'x'"),
        (b"[]", Order, "Order: expected object, got array"),
        (b'"x"', int, "int: expected int, got str"),
        (b'{"age":-1}', Careful, "Careful: age cannot be negative"),
        (b"null", Order, "the body is empty, Order needs id, items"),
        (b'[{"id":1,"items":[]},null]', list[Order], "list[Order][1]: expected object, got null"),
    ],
)
def test_a_complaint_names_the_field(body: bytes, hint: Any, expected: str) -> None:
    assert complaint(body, hint) == expected


def test_an_error_a_message_raises_itself_stays_what_it_is() -> None:
    with pytest.raises(NotFound):
        JsonCodec().decode(b'{"age":300}', Careful)


def test_unknown_fields_are_ignored_as_go_does() -> None:
    assert JsonCodec().decode(b'{"name":"a","new":[1]}', Item) == Item("a")


def test_null_is_what_go_writes_for_a_nil_slice_or_map() -> None:
    codec = JsonCodec()
    body = b'{"id":1,"items":null,"notes":null,"mood":null,"parent":null,"extra":null}'
    assert codec.decode(body, Order) == Order(1, [])
    assert codec.decode(b'{"k":null}', dict[str, list[int]]) == {"k": []}
    assert codec.decode(b"[null,[1]]", list[list[int]]) == [[], [1]]
    assert codec.decode(b'{"1":null}', dict[int, dict[str, int]]) == {1: {}}
    assert codec.decode(b'{"parent":{"id":2,"items":null},"id":1,"items":[]}', Order) == Order(
        1, [], parent=Order(2, [])
    )
    assert codec.decode(b"null", Defaults) == Defaults()


def test_a_field_without_a_null_form_is_still_missing() -> None:
    assert complaint(b'{"id":null,"items":[]}', Order) == "Order.id: expected int, got null"


def test_integers_may_be_strings_as_proto3_writes_them() -> None:
    codec = JsonCodec()
    assert codec.decode(b'{"id":"-9007199254740993","items":[]}', Order).id == -(2**53) - 1
    assert codec.decode(b'{"a":["1",2]}', dict[str, list[int]]) == {"a": [1, 2]}
    assert codec.decode(b'"7"', int | str) == "7"  # type: ignore[arg-type, comparison-overlap]  # a union
    assert "expected int, got str" in complaint(b'{"id":"1.5","items":[]}', Order)
    assert "expected int, got str" in complaint('{"id":"\u0661","items":[]}'.encode(), Order)
    assert "expected int, got str" in complaint(b'{"id":"' + b"9" * 5000 + b'","items":[]}', Order)


def test_nothing_is_read_where_nothing_is_wanted() -> None:
    assert JsonCodec().decode(b'{"msg":"done"}', type(None)) is None


def test_a_hint_that_cannot_be_hashed_works() -> None:
    hint: Any = Annotated[list[int], ["no", "hash"]]
    with pytest.raises(TypeError):
        hash(hint)
    assert JsonCodec().decode(b"[1]", hint) == [1]


def test_types_made_at_run_time_do_not_pile_up() -> None:
    codec = JsonCodec()
    for i in range(5000):
        assert codec.decode(b"1", Annotated[int, msgspec.Meta(ge=-i)]) == 1  # type: ignore[arg-type]  # a hint, no class
    assert len(codec._decoders) <= 4096
    assert "types" in repr(codec)


def test_a_type_that_cannot_be_filled_is_the_services_fault() -> None:
    for body in (b"{}", b""):
        with pytest.raises(InternalServerError, match="Plain is no message type"):
            JsonCodec().decode(body, Plain)


# Protobuf messages


def test_a_protobuf_message_takes_the_proto3_form() -> None:
    # As protojson in Go Micro v6 writes it: camelCase, 64-bit integers as strings, no zero fields.
    body = JsonCodec().encode(full_request())
    assert msgspec.json.decode(body) == {
        "name": "John",
        "bigNumber": "9007199254740993",
        "blob": "AP8=",
        "tags": ["a", "b"],
        "place": {"city": "Lund", "countryCode": "SE"},
        "counts": {"x": "-1"},
        "loud": True,
        "ratio": 0.5,
        "mood": "MERRY",
        "visited": [{"city": "Oslo"}],
    }
    assert JsonCodec().encode(message("HelloRequest")()) == b"{}\n"


def test_a_protobuf_message_is_read_in_both_spellings() -> None:
    kind = message("HelloRequest")
    codec = JsonCodec()
    for body in (b'{"bigNumber":"7","mood":"MERRY"}', b'{"big_number":7,"mood":1,"name":null}'):
        assert codec.decode(body, kind) == kind(big_number=7, mood=1)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"nope":1}', '"nope"'),
        (b'{"name":1}', "name"),
        (b'{"place":{"nope":1}}', "HelloRequest.place"),
        (b'{"bigNumber":"x"}', "bigNumber"),
        (b'{"counts":{"a":[]}}', "counts"),
        (b"[]", "expected object, got list"),
        (b'"x"', "expected object, got str"),
        (b'{"tags":{"a":1}}', "HelloRequest"),
        (b'{"visited":[1]}', "HelloRequest"),
    ],
)
def test_a_protobuf_field_that_does_not_fit_is_named(body: bytes, expected: str) -> None:
    detail = complaint(body, message("HelloRequest"))
    assert expected in detail
    assert "\n" not in detail


def test_protobufs_own_types_keep_their_json() -> None:
    from google.protobuf.struct_pb2 import Value
    from google.protobuf.timestamp_pb2 import Timestamp

    codec = JsonCodec()
    assert codec.decode(b'"2020-01-01T00:00:00Z"', Timestamp) == Timestamp(seconds=1577836800)
    assert codec.encode(Timestamp(seconds=1577836800)) == b'"2020-01-01T00:00:00Z"\n'
    assert codec.decode(b"[1,null]", Value).list_value.values[0].number_value == 1
    with pytest.raises(InternalServerError, match="Value cannot be sent"):
        codec.encode(Value(number_value=float("inf")))


# pydantic models


def test_a_pydantic_model_goes_by_its_aliases() -> None:
    codec = JsonCodec()
    person = codec.decode(b'{"name":"a","homeTown":"Lund"}', Person)
    assert person == Person(name="a", homeTown="Lund")
    assert codec.encode(person) == b'{"name":"a","homeTown":"Lund","tags":[]}\n'


def test_a_pydantic_complaint_names_the_fields() -> None:
    assert complaint(b'{"homeTown":1}', Person) == (
        "Person: name: Field required; homeTown: Input should be a valid string"
    )
    assert complaint(b'{"people":[{"name":"a","tags":[1]}]}', Mixed) == (
        "Mixed.people[0]: tags[0]: Input should be a valid string"
    )


# What it costs


def test_core_imports_neither_protobuf_nor_pydantic() -> None:
    code = (
        "import sys, shoal.codec.json, shoal.codec.proto, shoal.codec.proto_rpc, shoal.schema;"
        "from shoal.codec.json import JsonCodec; JsonCodec().decode(b'{}', dict);"
        "print([m for m in ('google', 'google.protobuf', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "protobuf" not in done.stdout
    assert "pydantic" not in done.stdout


def test_the_hot_path_builds_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = JsonCodec()
    codec.decode(b'{"name":"a"}', Item)

    def forbidden(self: Any, hint: Any) -> Callable[[bytes], Any]:
        raise AssertionError("a decoder was made for a known type")

    monkeypatch.setattr(JsonCodec, "_decoder", forbidden)
    assert timeit.timeit(lambda: codec.decode(b'{"name":"a"}', Item), number=1000) > 0
