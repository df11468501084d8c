"""Headers to lines and back, and tables that hostile names cannot grow."""

from __future__ import annotations

import sys

import pytest

from shoal.errors import BadRequest
from shoal.message import Header, Message, canonical, clean
from shoal.transport import _header
from shoal.transport._header import carried, encode, encode_message, read_name


def test_lines() -> None:
    assert encode({"micro-id": "1", "A": "b  c"}) == b"Micro-Id: 1\r\nA: b  c\r\n"
    assert encode({}) == b""
    assert encode({"A": "Grüße"}) == "A: Grüße\r\n".encode()


@pytest.mark.parametrize("evil", ["\r\nX: y", "\n", "\r", "\0", "\x0b", "\x0c", "\x1b", "\x7f"])
def test_no_value_makes_another_line(evil: str) -> None:
    assert encode({"A": f"a{evil}b"}).count(b"\n") == 1
    line = encode({"A": f"a{evil}b"})
    assert (
        line
        == b"A: a"
        + bytes(evil.translate(dict.fromkeys(range(32), " ")), "ascii").replace(b"\x7f", b" ")
        + b"b\r\n"
    )


@pytest.mark.parametrize("break_", ["\u2028", "\u2029", "\x85", "\u0600"])
def test_what_unicode_calls_a_line_is_carried(break_: str) -> None:
    assert encode({"A": f"a{break_}b"}) == f"A: a{break_}b\r\n".encode()


def test_half_a_surrogate_is_replaced() -> None:
    assert encode({"A": "a\ud800b"}) == b"A: a?b\r\n"


@pytest.mark.parametrize("name", ["", " ", "a b", "a:b", "a\r\nb", "a\0b", "é", "a/b", "a\tb"])
def test_bad_names(name: str) -> None:
    for function in (encode, carried):
        with pytest.raises(BadRequest):
            function({name: "x"})


def test_lines_that_are_shared_come_first_and_are_made_once() -> None:
    shared = Header({"a": "100 %s"})
    for id in "12":
        assert (
            encode_message(b"% ", Message({"Id": id, "B": "é\n"}, b"body %b!", shared))
            == f"% A: 100 %s\r\nId: {id}\r\nB: é\r\nContent-Length: 8\r\n\r\nbody %b!".encode()
        )
    assert len(shared.forms) == 1


@pytest.mark.parametrize("value", ["a b", "\ud800x", "é", "x\x00y", "", "½", "a\r\nB: c"])
def test_values_beside_a_shared_header(value: str) -> None:
    message = Message({"Id": "7", "Value": value}, b"", Header({"A": "b"}))
    line = clean(value).encode("utf-8", "replace")
    expected = b"A: b\r\nId: 7\r\nValue: " + line + b"\r\nContent-Length: 0\r\n\r\n"
    assert encode_message(b"", message) == expected


def test_a_name_may_have_a_percent_sign() -> None:
    head = encode_message(b"", Message({"A%s": "1", "B%": "2"}, b"", Header({"C%d": "3"})))
    assert head == b"C%d: 3\r\nA%s: 1\r\nB%: 2\r\nContent-Length: 0\r\n\r\n"


def test_of_two_equal_names_the_own_one_comes_first() -> None:
    shared = Header({"A": "shared", "Content-Length": "7"})
    head = encode_message(b"", Message({"a": "own", "Host": "x"}, b"", shared))
    assert head == b"A: own\r\nA: shared\r\nContent-Length: 0\r\n\r\n"


def test_forms_of_a_shared_header_are_bounded() -> None:
    shared = Header({"A": "b"})
    for number in range(_header._FORMS + 10):
        head = encode_message(b"", Message({f"X-{number}": "y"}, b"", shared))
        assert head.startswith(f"A: b\r\nX-{number}: y\r\n".encode())
    assert len(shared.forms) == _header._FORMS
    with pytest.raises(BadRequest):
        encode_message(b"", Message({"a b": ""}, b"", shared))


def test_what_is_carried() -> None:
    header = {"micro-ID": " 1\n2 "}
    assert carried(header) == {"Micro-Id": "1 2"}
    assert header == {"micro-ID": " 1\n2 "}


def test_tables_stay_small_and_useful() -> None:
    for number in range(20_000):
        name = f"X-{number}"
        assert read_name(name.encode()) == name
        encode({name: ""})
    for number in range(100):
        name = "X" + "y" * 10_000 + str(number)
        assert read_name(name.encode()) == canonical(name)
        encode({name: ""})
    for table in (_header._names, _header._prefixes):
        assert len(table) <= 4096
        assert max(map(len, table)) <= 64
        assert sys.getsizeof(table) < 1_000_000
    read_name(b"micro-id")
    assert b"micro-id" in _header._names
