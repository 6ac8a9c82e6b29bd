"""Which pairs a subset keeps: the same ones of every benchmark's order, spread over it, and always the same."""

from __future__ import annotations

from itertools import pairwise

import pytest

from minima_core.errors import ConfigError
from minima_core.evaluation.benchmarks._part import MOST, Part, ScenePart

SCENES = ["a", "a", "b", "c", "b"]


@pytest.mark.parametrize("subset", MOST)
@pytest.mark.parametrize("n", [0, 1, 2, 3, 10, 11, 100, 1501])
def test_it_reaches_from_the_first_to_the_last_in_even_steps(subset, n):
    kept = Part(subset=subset).some(range(n))
    assert len(kept) == min(n, MOST[subset])
    if n:
        assert (kept[0], kept[-1]) == (0, n - 1)
    steps = {b - a for a, b in pairwise(kept)}
    assert not steps or (min(steps) >= 1 and max(steps) - min(steps) <= 1)


def test_the_whole_is_everything_and_has_no_name():
    assert Part(subset="full").some(range(1501)) == list(range(1501))
    assert (Part(subset="full").name(), Part(subset="mini").name()) == ("", "mini")


def test_scenes_keep_their_order_and_stand_in_the_name():
    part = ScenePart(subset="smoke", scenes=["b", "a"])
    assert part.of_scenes(SCENES, str) == ["a", "a", "b", "b"]
    assert part.name() == "smoke, scenes b, a"
    every = ScenePart(subset="full", scenes=[])
    assert every.of_scenes(SCENES, str) == SCENES and every.name() == ""


def test_a_scene_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(ConfigError, match=r"'d' is not in the data of this benchmark; .*a, b, c"):
        ScenePart(subset="full", scenes=["a", "d"]).of_scenes(SCENES, str)
