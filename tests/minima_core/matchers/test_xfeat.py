"""XFeat's mutual nearest neighbours, on features made by hand."""

from __future__ import annotations

import math

import pytest
import torch

from minima_core.errors import ConfigError
from minima_core.matchers.lightglue.extractors import Features
from minima_core.models import PUBLISHED_MODELS, create


@pytest.fixture(scope="module")
def xfeat():
    return create(*PUBLISHED_MODELS["xfeat"], "test")


def features(*degrees: float) -> Features:
    """Keypoint k at (k, 10 k), its descriptor a direction in the plane."""
    kpts = torch.tensor([[k, 10.0 * k] for k in range(len(degrees))]).reshape(-1, 2)
    desc = torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in degrees]).reshape(-1, 2)
    return Features(kpts, torch.ones(len(degrees)), desc, (640, 480))


def test_matches_are_each_others_nearest_and_near_enough(xfeat):
    # 0 and 4 both want 3, which prefers 4; 90 and 130 are mutual, but 40 degrees apart (cosine 0.77)
    (found,) = xfeat._match([features(0, 4, 90, 180)], [features(181, 3, 130)], 9)
    assert found.mkpts0.tolist() == [[1, 10], [3, 30]] and found.mkpts1.tolist() == [[1, 10], [0, 0]]
    assert found.scores.tolist() == pytest.approx([math.cos(math.radians(1))] * 2, abs=1e-6)


@pytest.mark.parametrize("counts", [(0, 3), (3, 0), (0, 0)])
def test_no_keypoints_no_matches(xfeat, counts):
    (found,) = xfeat._match(*([features(*range(n))] for n in counts), 9)
    assert len(found) == 0


def test_nothing_is_trained(xfeat):
    assert not [p for p in xfeat.parameters() if p.requires_grad]
    with pytest.raises(ConfigError, match="nothing to train"):
        xfeat.loss(None)
