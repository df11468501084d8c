"""How Redis is addressed."""

from __future__ import annotations

import pytest

from shoal.broker._redis_settings import Server, servers
from shoal.errors import BadRequest


def test_nothing_is_the_usual_address() -> None:
    assert servers("", "x") == [Server("127.0.0.1", 6379, 0, "", "", False)]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("redis.local", Server("redis.local", 6379, 0, "", "", False)),
        ("redis://h:1", Server("h", 1, 0, "", "", False)),
        ("rediss://h:1/2", Server("h", 1, 2, "", "", True)),
        (":s%40crt@h:1", Server("h", 1, 0, "", "s@crt", False)),
        ("u:p@[::1]:1/15", Server("::1", 1, 15, "u", "p", False)),
    ],
)
def test_an_address_says_all(address: str, expected: Server) -> None:
    assert servers(address, "x") == [expected]


def test_what_one_address_says_holds_for_all() -> None:
    found = servers("rediss://u:p@a:1, b:2,v:q@c:3/4", "x")
    assert [str(one) for one in found] == ["a:1", "b:2", "c:3"]
    assert [(one.user, one.password) for one in found] == [("u", "p"), ("u", "p"), ("v", "q")]
    assert all(one.database == 4 and one.secure for one in found)


@pytest.mark.parametrize(
    "wrong", ["http://h:1", "h:port", "h:99999", "u:secret@", "h:1/x", "h:1?db=2", "a:1,,b:2", "["]
)
def test_what_is_no_address_is_refused_without_a_word_of_the_password(wrong: str) -> None:
    with pytest.raises(BadRequest, match="is not of the form") as caught:
        servers(wrong, "x")
    assert "secret" not in str(caught.value)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(servers("u:secret@h:1", "x"))
    assert str(servers("u:secret@[::1]:1", "x")[0]) == "[::1]:1"
