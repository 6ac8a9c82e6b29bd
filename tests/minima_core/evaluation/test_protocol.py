from __future__ import annotations

import pytest

from minima_core.config import checked
from minima_core.errors import ConfigError
from minima_core.evaluation.protocol import PROTOCOLS, Evaluation, get_protocol

# Results are compared by these hashes: a change here makes every published number of the protocol incomparable.
FROZEN = {
    "minima-v1": "b82495d82013ebade6f2745e6048be54cbccf7226cbe310e28cb2c53d1056803",
    "strict-v1": "59779a9b712e022be6aab2a2f7185d65db84143798239203f13d463fd52cd951",
}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_protocols_are_frozen(name):
    assert get_protocol(name).digest() == FROZEN[name]


def test_names_are_those_of_the_records():
    assert all(protocol.name == name for name, protocol in PROTOCOLS.items())


def test_an_override_of_the_keypoints_changes_the_hash():
    plain, fewer = get_protocol("minima-v1"), get_protocol("minima-v1", max_keypoints=512)
    assert fewer.digest() != plain.digest()
    assert fewer.matching.max_keypoints == 512
    assert fewer.pose == plain.pose


def test_an_override_of_the_size_holds_for_every_matcher_and_changes_the_hash():
    plain, smaller = get_protocol("minima-v1"), get_protocol("minima-v1", long_side=256)
    assert smaller.digest() != plain.digest()
    assert (smaller.matching.long_side, smaller.matching.sparse_long_side) == (256, None)
    assert smaller.homography == plain.homography


def test_an_unknown_protocol_names_the_closest():
    with pytest.raises(ConfigError, match="did you mean 'minima-v1'"):
        get_protocol("minima-v2")


def test_no_keypoints_are_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        get_protocol("minima-v1", max_keypoints=0)


def test_images_too_small_to_match_are_refused():
    with pytest.raises(ConfigError, match="at least 64, not 8"):
        get_protocol("minima-v1", long_side=8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"thresholds": [], "seeds": [0]},
        {"thresholds": [0], "seeds": [0]},
        {"thresholds": [float("inf")], "seeds": [0]},
        {"thresholds": [1, 1], "seeds": [0]},
        {"thresholds": [1], "seeds": [-1]},
        {"thresholds": [1], "seeds": [0, 0]},
        {"thresholds": [1]},
        "all",
    ],
)
def test_a_sweep_that_cannot_be_scored_is_refused_before_anything_runs(wrong):
    with pytest.raises(ConfigError, match=r"evaluation\.toy\.sweep"):
        checked({"protocol": "strict-v1", "sweep": wrong}, Evaluation, "evaluation.toy")
