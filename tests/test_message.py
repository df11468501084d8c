"""Messages, and names and values of headers in the form HTTP has."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal import message
from shoal.message import Header, Message, canonical, clean


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("micro-ID", "Micro-Id"),
        ("Micro-Id", "Micro-Id"),
        ("MICRO-SERVICE", "Micro-Service"),
        ("foo_bar", "Foo_bar"),
        ("x", "X"),
        ("-a--b-", "-A--B-"),
        ("1a-2b", "1a-2b"),
        ("!#$%&'*+.^`|~", "!#$%&'*+.^`|~"),
    ],
)
def test_names_as_go_spells_them(name: str, expected: str) -> None:
    assert canonical(name) == expected
    assert canonical(expected) == expected


@pytest.mark.parametrize("name", ["", " ", "a b", "a:b", "a\r\nb", "a\n", "\0", "é", "a/b", "(a)"])
def test_names_http_cannot_carry(name: str) -> None:
    for _ in range(2):
        with pytest.raises(ValueError, match="cannot be a header name"):
            canonical(name)


@given(st.text())
def test_a_name_is_canonical_or_none(name: str) -> None:
    try:
        once = canonical(name)
    except ValueError:
        return
    assert canonical(once) == once
    assert once.lower() == name.lower()
    assert once.isascii()


def test_the_table_of_names_is_bounded() -> None:
    for number in range(10_000):
        canonical(f"x-{number}")
    canonical("y" * 100_000)
    assert len(message._names) <= 4096
    assert all(len(name) <= 64 for name in message._names)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", "plain"),
        ("  ends \t", "ends"),
        ("a\r\nb", "a  b"),
        ("a\nb\rc\0d", "a b c d"),
        ("\n", ""),
        ("tab\tinside", "tab\tinside"),
        ("\x01\x1f\x7fx", "x"),
        ("Grüße\u00a0世界", "Grüße\u00a0世界"),
        ("", ""),
    ],
)
def test_values_of_one_line(value: str, expected: str) -> None:
    assert clean(value) == expected


@given(st.text())
def test_a_clean_value_stays_as_it_is(value: str) -> None:
    once = clean(value)
    assert clean(once) == once
    assert not any(ord(character) < 32 and character != "\t" for character in once)
    assert len(once) <= len(value)


def test_the_message_s_own_headers_win() -> None:
    shared = Header({"A": "shared", "B": "shared"})
    own = {"A": "own", "C": "own"}
    both = Message(own, b"", shared)
    assert both.headers() == {"A": "own", "B": "shared", "C": "own"}
    both.headers()["D"] = "x"
    assert own == {"A": "own", "C": "own"}
    assert shared == {"A": "shared", "B": "shared"}


def test_headers_are_a_new_dict() -> None:
    alone = Message({"A": "1"})
    alone.headers()["A"] = "2"
    assert alone.header == {"A": "1"}
    assert Message().header is not Message().header


def test_a_header_keeps_its_encoded_forms() -> None:
    header = Header({"A": "b"})
    assert not hasattr(header, "forms")
    header.forms = {(): b""}
    assert header == {"A": "b"}
    with pytest.raises(AttributeError):
        header.other = 1  # type: ignore[attr-defined]  # there is no room for more
