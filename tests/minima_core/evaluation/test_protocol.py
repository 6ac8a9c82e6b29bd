from __future__ import annotations

import pytest

from minima_core.errors import ConfigError
from minima_core.evaluation.protocol import PROTOCOLS, get_protocol

# Results are compared by this hash: a change here makes every published number of minima-v1 incomparable.
MINIMA_V1 = "d87f76cb101e8a6adb025b872dd72e401772f21611992774e6e7c764c2caa84c"


def test_minima_v1_is_frozen():
    assert get_protocol("minima-v1").digest() == MINIMA_V1


def test_names_are_those_of_the_records():
    assert all(protocol.name == name for name, protocol in PROTOCOLS.items())


def test_an_override_of_the_keypoints_changes_the_hash():
    plain, fewer = get_protocol("minima-v1"), get_protocol("minima-v1", max_keypoints=512)
    assert fewer.digest() != plain.digest()
    assert fewer.matching.max_keypoints == 512
    assert fewer.pose == plain.pose


def test_an_unknown_protocol_names_the_closest():
    with pytest.raises(ConfigError, match="did you mean 'minima-v1'"):
        get_protocol("minima-v2")


def test_no_keypoints_are_refused():
    with pytest.raises(ConfigError, match="at least 1"):
        get_protocol("minima-v1", max_keypoints=0)
