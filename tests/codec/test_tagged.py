"""Tests of protobuf for dataclasses, held to what the protobuf library does."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.codec import _tagged
from tests.codec.greeter import message


class Mood(enum.IntEnum):
    CALM = 0
    MERRY = 1


@dataclass
class Place:
    city: str = field(default="", metadata={"proto": 1})
    country_code: str = field(default="", metadata={"proto": 2})


@dataclass
class Hello:
    """The fields of greeter.proto's HelloRequest, one with a default of its own."""

    name: str = field(default="nobody", metadata={"proto": 1})
    big_number: int = field(default=0, metadata={"proto": 2})
    blob: bytes = field(default=b"", metadata={"proto": 3})
    tags: list[str] = field(default_factory=list, metadata={"proto": 4})
    place: Place = field(default_factory=Place, metadata={"proto": 5})
    counts: dict[str, int] = field(default_factory=dict, metadata={"proto": 6})
    loud: bool = field(default=False, metadata={"proto": 7})
    ratio: float = field(default=0.0, metadata={"proto": 8})
    mood: Mood = field(default=Mood.CALM, metadata={"proto": 9})
    visited: list[Place] = field(default_factory=list, metadata={"proto": 10})


@dataclass
class Numbers:
    plain: list[int] = field(default_factory=list, metadata={"proto": 1})
    large: int = field(default=0, metadata={"proto": 2, "as": "uint64"})
    fixed: list[int] = field(default_factory=list, metadata={"proto": 3, "as": "fixed64"})
    moods: list[Mood] = field(default_factory=list, metadata={"proto": 4})


@dataclass
class Tree:
    left: list[Tree] = field(default_factory=list, metadata={"proto": 1})


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
INT64 = st.integers(-(2**63), 2**63 - 1)
PLACES = st.builds(Place, TEXT, TEXT)
HELLOS = st.builds(
    Hello,
    name=TEXT,
    big_number=INT64,
    blob=st.binary(max_size=20),
    tags=st.lists(TEXT, max_size=5),
    place=PLACES,
    counts=st.dictionaries(TEXT, INT64, max_size=5),
    loud=st.booleans(),
    ratio=st.floats(allow_nan=False).filter(bool),
    mood=st.sampled_from(Mood),
    visited=st.lists(PLACES, max_size=3),
)


@given(HELLOS)
def test_the_protobuf_library_reads_what_is_written(hello: Hello) -> None:
    theirs = message("HelloRequest").FromString(_tagged.encode(hello))
    for name in ("name", "big_number", "blob", "loud", "ratio", "mood"):
        assert getattr(theirs, name) == getattr(hello, name)
    assert list(theirs.tags) == hello.tags
    assert dict(theirs.counts) == hello.counts
    assert [(place.city, place.country_code) for place in theirs.visited] == [
        (place.city, place.country_code) for place in hello.visited
    ]
    assert _tagged.decode(theirs.SerializeToString(), Hello) == hello
    assert _tagged.decode(_tagged.encode(hello), Hello) == hello


@given(st.binary(max_size=200))
def test_garbage_is_a_value_error_or_what_protobuf_reads_too(data: bytes) -> None:
    for kind in (Hello, Numbers, Tree):
        try:
            _tagged.decode(data, kind)
        except ValueError:
            continue


def test_absent_fields_are_zero_whatever_the_default() -> None:
    assert _tagged.decode(b"", Hello).name == ""
    assert _tagged.encode(Hello(name="")) == b""


def test_numbers_keep_their_form() -> None:
    numbers = Numbers([1, -1, 2**40], 2**64 - 1, [7, 2**64 - 1], [Mood.MERRY])
    assert _tagged.decode(_tagged.encode(numbers), Numbers) == numbers
    packed = bytes.fromhex("0a0301ac021a08070000000000000022020107")
    assert _tagged.decode(packed, Numbers) == Numbers([1, 300], 0, [7], [Mood.MERRY, 7])  # type: ignore[list-item]  # proto3 keeps unknown enum values


@pytest.mark.parametrize(
    "body",
    [
        "0a",  # no length
        "0a05",  # cut off
        "08ffffffffffffffffffff01",  # longer than 64 bits
        "00",  # field number 0
        "0b",  # a group
        "0f",  # no wire type
        "0801",  # a number where text is
        "0a01ff",  # no UTF-8
        "ffffffffffffffffff",
        "4100",
    ],
)
def test_what_is_no_message_is_refused(body: str) -> None:
    with pytest.raises(ValueError, match=r"\w+ \w+"):
        _tagged.decode(bytes.fromhex(body), Hello)


def test_unknown_fields_are_passed_over() -> None:
    body = bytes.fromhex("f80701f907" + "00" * 8 + "fa0701fffd07" + "00" * 4 + "0a0161")
    assert _tagged.decode(body, Place) == Place("a")


def test_deep_nesting_is_refused() -> None:
    body = b""
    for _ in range(200):
        body = _tagged._pack_bytes(b"\x0a") + _length(len(body)) + body
    with pytest.raises(ValueError, match="nested too deeply"):
        _tagged.decode(body, Tree)


@pytest.mark.parametrize(
    "hello",
    [
        Hello(name=5),  # type: ignore[arg-type]  # the point of the test
        Hello(big_number=2**63),
        Hello(big_number="1"),  # type: ignore[arg-type]  # the point of the test
        Hello(blob=5),  # type: ignore[arg-type]  # the point of the test
        Hello(ratio="x"),  # type: ignore[arg-type]  # the point of the test
        Hello(name="\ud800"),
        Numbers(large=-1),
        Numbers(fixed=[-1]),
    ],
)
def test_a_value_of_another_type_is_refused(hello: Any) -> None:
    with pytest.raises((TypeError, ValueError, OverflowError)):
        _tagged.encode(hello)


def test_what_has_numbers_is_told_from_what_has_not() -> None:
    @dataclass
    class Half:
        a: str = field(default="", metadata={"proto": 1})
        b: str = ""

    @dataclass
    class Strange:
        a: complex = field(default=0j, metadata={"proto": 1})

    assert _tagged.is_tagged(Hello)
    assert not any(_tagged.is_tagged(kind) for kind in (Half, Hello(), str, None, list[Hello]))
    with pytest.raises(TypeError, match="complex"):
        _tagged.encode(Strange())


def _length(size: int) -> bytes:
    return bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
