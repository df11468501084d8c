"""When an event comes again, and what is told of one that does not."""

from __future__ import annotations

import pytest

from shoal.broker._retry import Retry, dead_letter
from shoal.message import Message


def test_a_pause_doubles_up_to_a_limit() -> None:
    retry = Retry(backoff=0.5, longest=3.0)
    for failed, expected in ((1, 0.5), (2, 1.0), (3, 2.0), (4, 3.0), (10_000, 3.0)):
        assert retry.pause(failed) == pytest.approx(expected, rel=0.11)
    assert Retry(backoff=0).pause(3) == 0


def test_a_dead_letter_has_a_topic() -> None:
    assert Retry().topic("orders") == "orders.dead"
    assert Retry(dead_letter="graveyard").topic("orders") == "graveyard"
    assert Retry(dead_letter="").topic("orders") == ""


def test_a_dead_letter_tells_what_befell_it() -> None:
    message = Message({"Kind": "x"}, b"body")
    dead = dead_letter(message, topic="orders", queue="mail", attempts=3, reason=ValueError("a\nb"))
    assert dead.body == b"body"
    assert dead.header == {
        "Kind": "x",
        "Dead-Letter-Topic": "orders",
        "Dead-Letter-Queue": "mail",
        "Dead-Letter-Attempts": "3",
        "Dead-Letter-Reason": "a b",
    }
    assert message.header == {"Kind": "x"}
    nameless = dead_letter(message, topic="o", queue="", attempts=1, reason=ValueError())
    assert nameless.header["Dead-Letter-Reason"] == "ValueError"


@pytest.mark.parametrize("wrong", [{"attempts": 0}, {"backoff": -1.0}, {"longest": -1.0}])
def test_settings_that_mean_nothing_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="one attempt"):
        Retry(**wrong)  # type: ignore[arg-type]  # each has its own type
