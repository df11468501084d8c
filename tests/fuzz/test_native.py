"""Connections of Shoal's own protocol with whatever bytes in whatever pieces."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.native import WORDS, check, checked
from tests.fuzz.runner import corpus, mutate
from tests.fuzz.test_http1 import CUTS, cut

NOISE = st.lists(st.sampled_from(WORDS) | st.binary(max_size=40), max_size=12).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(st.booleans(), NOISE, CUTS)
def test_anything_in_any_pieces(dialled: bool, data: bytes, places: list[int]) -> None:
    checked(dialled, cut(WORDS[0] + data if not dialled else data, places))


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(corpus("native")), NOISE, st.integers(0, 500), CUTS)
def test_good_input_with_noise_in_it(
    seed: bytes, noise: bytes, place: int, places: list[int]
) -> None:
    data = WORDS[0] + seed[2:]
    place %= len(data) + 1
    checked(False, cut(data[:place] + noise + data[place:], places))


@pytest.mark.parametrize("seed", corpus("native"))
def test_the_corpus(seed: bytes) -> None:
    for pieces in range(64):
        check(bytes([seed[0], pieces]) + seed[2:])


def test_the_runner_for_a_moment() -> None:
    assert mutate(check, corpus("native"), WORDS, 1.0, seed=1) > 0
