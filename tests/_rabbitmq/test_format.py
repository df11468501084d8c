"""Tests of names, header tables and what is read of them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from shoal._rabbitmq import check_name, read, table
from shoal.errors import BadRequest


def test_values_become_text_as_go_prints_them() -> None:
    assert read(
        {
            "Text": "größe",
            "Number": 7,
            "Big": 2**40,
            "Yes": True,
            "Half": 0.5,
            "Whole": 3.0,
            "Bytes": bytearray(b"ab\xff"),
        }
    ) == {
        "Text": "größe",
        "Number": "7",
        "Big": str(2**40),
        "Yes": "true",
        "Half": "0.5",
        "Whole": "3",
        "Bytes": "ab\N{REPLACEMENT CHARACTER}",
    }


def test_what_has_no_place_in_a_header_is_left_out() -> None:
    strange = {
        "x-death": [{"count": 1}],
        "x-first-death-queue": "q",
        "x-shoal-failed": 1,
        "List": [1],
        "Table": {"a": 1},
        "None": None,
        "Decimal": Decimal(1),
        "bad name": "x",
    }
    assert read(strange) == {}
    assert read(None) == {}


def test_names_are_canonical_and_values_one_line() -> None:
    assert read({"micro-ID": "1", "X": "a\r\nb"}) == {"Micro-Id": "1", "X": "a  b"}


@pytest.mark.parametrize("header", [{"A" * 256: "x"}, {"A": "\ud800"}])
def test_a_header_amqp_cannot_carry_is_refused(header: dict[str, str]) -> None:
    with pytest.raises(BadRequest):
        table(header, "id")


@pytest.mark.parametrize("name", ["", " ", "a\0", "\ud800", "ä" * 128])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(BadRequest):
        check_name(name, "topic", "id")


def test_names_with_a_meaning_are_refused_where_they_have_it() -> None:
    for name in ("*", "#", "a.*", "#.b"):
        check_name(name, "topic", "id")
        with pytest.raises(BadRequest):
            check_name(name, "topic", "id", pattern=True)
    check_name("a.b*", "topic", "id", pattern=True)
    check_name("amq.a", "topic", "id")
    with pytest.raises(BadRequest):
        check_name("amq.a", "queue", "id")
