"""Tests of what is a subject."""

from __future__ import annotations

import pytest

from shoal._nats import check_subject
from shoal.errors import BadRequest


@pytest.mark.parametrize("name", ["a", "a.b.c", "größe.日本", "a-b_c/d:1", "_INBOX.x", "x" * 1024])
def test_names(name: str) -> None:
    check_subject(name, "topic", "x")


@pytest.mark.parametrize(
    "name",
    ["", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\r\nb", "a\0", "a.*", "a*b", ">", "a.>", "a>b",
     "$SYS.x", "$JS.API.INFO", "\ud800", "x" * 1025, "ä" * 513],
)  # fmt: skip
def test_what_is_none(name: str) -> None:
    with pytest.raises(BadRequest) as caught:
        check_subject(name, "topic", "shoal.broker")
    assert caught.value.id == "shoal.broker"
    assert "topic" in str(caught.value) or "text" in str(caught.value)
