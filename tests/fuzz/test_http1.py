"""HTTP/1.1 sockets with whatever bytes in whatever pieces, and the harness itself."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.message import Header, Message, clean
from shoal.transport._header import _FRAMING
from shoal.transport._http1 import BUFFER, ClientSocket, ServerSocket
from tests.fuzz.http1 import WORDS, check, checked, outcome, running
from tests.fuzz.runner import corpus, mutate

NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,20}", fullmatch=True).filter(
    lambda name: name.title() not in {one.title() for one in _FRAMING}
)
HEADERS = st.dictionaries(NAMES, st.text(max_size=50), max_size=8)
MESSAGES = st.builds(Message, HEADERS, st.binary(max_size=300), st.none() | HEADERS.map(Header))
CUTS = st.lists(st.integers(0, 2000), max_size=12)
NOISE = st.lists(st.sampled_from(WORDS) | st.binary(max_size=40), max_size=12).map(b"".join)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return data in pieces."""
    ends = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[begin:end] for begin, end in pairwise(ends)]


@settings(max_examples=400, deadline=None)
@given(st.booleans(), NOISE, CUTS)
def test_anything_in_any_pieces(client: bool, data: bytes, places: list[int]) -> None:
    checked(client, cut(data, places))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(corpus("http1")), NOISE, st.integers(0, 500), CUTS)
def test_good_input_with_noise_in_it(
    seed: bytes, noise: bytes, place: int, places: list[int]
) -> None:
    data = seed[2:]
    place %= len(data) + 1
    checked(bool(seed[0] & 1), cut(data[:place] + noise + data[place:], places))


@settings(max_examples=200, deadline=None)
@given(st.booleans(), st.lists(MESSAGES, min_size=1, max_size=4), CUTS)
def test_messages_come_out_as_they_went_in(
    client: bool, messages: list[Message], places: list[int]
) -> None:
    with running():
        buffer = memoryview(bytearray(BUFFER))
        sender = ServerSocket(buffer, 0, 1.0) if client else ClientSocket("h:1", buffer, 0, 1.0)
        data = b"".join(map(sender._encode, messages))
    got, error, _ = outcome(client, cut(data, places))
    assert error is None
    assert [message.body for message in got] == [message.body for message in messages]
    for sent, came in zip(messages, got, strict=True):
        wanted: dict[str, str] = {}
        for header in (sent.header, sent.shared or {}):  # the first of equal names counts
            for name, value in header.items():
                name = "-".join(part.capitalize() for part in name.split("-"))
                value = clean(value).encode("utf-8", "replace").decode()
                wanted.setdefault(name, value)
        own = {name: value for name, value in came.header.items() if name not in _FRAMING}
        assert own == wanted


@pytest.mark.parametrize("seed", corpus("http1"))
def test_the_corpus(seed: bytes) -> None:
    for pieces in range(256):
        check(bytes([seed[0], pieces]) + seed[2:])


def test_the_runner_for_a_moment() -> None:
    assert mutate(check, corpus("http1"), WORDS, 1.0, seed=1) > 0


def test_the_runner_tells_of_what_is_wrong() -> None:
    def fussy(data: bytes) -> None:
        assert b"\0" not in data

    with pytest.raises(AssertionError):
        mutate(fussy, [b"abc"], [b"\0"], 20.0, seed=1)
