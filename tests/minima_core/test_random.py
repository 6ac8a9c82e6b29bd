"""Randomness comes from a seed and what it is for."""

from hypothesis import given
from hypothesis import strategies as st

from minima_core.random import derive, rng


@given(st.integers(0, 2**31), st.text(max_size=20), st.integers(0, 10**6))
def test_equal_words_give_equal_numbers(seed, name, index):
    assert rng(seed, name, index).integers(1 << 62) == rng(seed, name, index).integers(1 << 62)


def test_every_part_and_its_kind_and_place_count():
    seeds = [
        derive(0, "a", "b"),
        derive(1, "a", "b"),
        derive(0, "ab"),
        derive(0, "b", "a"),
        derive(0, "a"),
        derive(0, 1),
        derive(0, "1"),
    ]
    assert len(set(seeds)) == len(seeds)
