"""Module _codec has the messages the suite of codecs sends."""

from __future__ import annotations

import datetime
import decimal
import enum
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypedDict

import msgspec


class Mood(enum.Enum):
    """An enumeration of strings."""

    CALM = "calm"
    MERRY = "merry"


@dataclass
class Item:
    """A dataclass inside another."""

    name: str
    price: float = 0.0


@dataclass(frozen=True, slots=True)
class Order:
    """A dataclass with a field of most kinds."""

    id: int
    items: list[Item]
    notes: dict[str, str] = field(default_factory=dict[str, str])
    mood: Mood = Mood.CALM
    blob: bytes = b""
    parent: Order | None = None
    extra: Any = None


class Place(msgspec.Struct, rename="camel"):
    """A struct whose fields are called otherwise on the wire."""

    country_code: str
    post_codes: tuple[int, ...] = ()


class Point(TypedDict):
    """A dict with known keys."""

    x: int
    y: float


class Pair(NamedTuple):
    """A row."""

    left: str
    right: int


@dataclass
class Defaults:
    """A dataclass whose fields all have defaults."""

    name: str = "nobody"
    tags: list[str] = field(default_factory=list[str])


ITEMS = [Item("räksmörgås \U0001f990", 1.5), Item("", -0.25)]
ORDER = Order(
    2**53 + 1,
    ITEMS,
    {"a": "b", "": "\x00\x1f\"'\\<&>\u2028"},
    Mood.MERRY,
    bytes(range(256)),
    Order(-(2**63), []),
    {"deep": [1, [2.5, {"x": None}], True]},
)
MOMENT = datetime.datetime(2024, 2, 29, 23, 59, 59, 123456, datetime.UTC)

TYPED: tuple[tuple[Any, Any], ...] = (
    (ORDER, Order),
    (ITEMS, list[Item]),
    (Place("SE", (1, 2)), Place),
    ({"x": 1, "y": 2.5}, Point),
    (Pair("a", 1), Pair),
    ({"k": ITEMS}, dict[str, list[Item]]),
    ({1: "one"}, dict[int, str]),
    ({"a": [1, None, {"b": 2.5}]}, dict),
    ({"a": [1, None, {"b": 2.5}]}, Any),
    ([1, "a"], object),
    ("text", str),
    (-(2**63), int),
    (2**64 - 1, int),
    (0.1, float),
    (True, bool),
    (None, type(None)),
    (None, int | None),
    (Item("x"), Item | None),
    ("a", int | str),
    (b"\x00\xff", bytes),
    (MOMENT, datetime.datetime),
    (uuid.UUID(int=7), uuid.UUID),
    (decimal.Decimal("0.10"), decimal.Decimal),
    (Mood.MERRY, Mood),
    ({3, 4}, set[int]),
    ([ORDER] * 3, tuple[Order, ...]),
)
"""Pairs of a message and its type hint that every codec for any type hint carries."""


def mutations(body: bytes, count: int) -> Iterator[bytes]:
    """Yield broken forms of a body, always the same ones."""
    dice = random.Random(len(body))
    for _ in range(count):
        broken = bytearray(body)
        for _ in range(dice.randint(1, 4)):
            at = dice.randrange(len(broken) + 1)
            match dice.randrange(4):
                case 0:
                    del broken[at:]
                case 1:
                    del broken[at : at + dice.randint(1, 8)]
                case 2:
                    broken[at:at] = dice.randbytes(dice.randint(1, 8))
                case _:
                    broken[at : at + 1] = dice.randbytes(1)
        yield bytes(broken)
    for size in range(40):
        yield dice.randbytes(size)
