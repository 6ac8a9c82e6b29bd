from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

from minima_core.errors import ConfigError
from minima_core.matchers.base import MATCHERS
from minima_core.models import load_matcher


def photograph(seed: int = 0) -> np.ndarray:
    """Blobs of many sizes, 320 x 240: what SIFT is made for."""
    random = np.random.default_rng(seed)
    image = np.full((240, 320, 3), 128, np.uint8)
    for x, y, radius, *colour in random.integers(0, [320, 240, 14, 255, 255, 255], (150, 6)):
        cv2.circle(image, (int(x), int(y)), int(radius) + 2, [int(c) for c in colour], -1, cv2.LINE_AA)
    return image


@pytest.fixture(scope="module")
def sift():
    return load_matcher("sift")


def test_a_turned_and_enlarged_image_is_found_where_it_is(sift):
    image = photograph()
    H = np.vstack([cv2.getRotationMatrix2D((160, 120), 25, 1.2), [0, 0, 1]])
    found = sift.match(image, cv2.warpPerspective(image, H, (320, 240)))
    kpts0 = found.mkpts0.numpy()
    expected = np.column_stack([kpts0, np.ones(len(found))]) @ H.T
    errors = np.linalg.norm(expected[:, :2] / expected[:, 2:] - found.mkpts1.numpy(), axis=1)
    assert len(found) > 30 and (errors < 2).mean() > 0.9
    assert found.scores.min() >= 0.2 and found.scores.max() <= 1  # a ratio below 0.8


def test_an_image_has_no_business_in_another(sift):
    own, other = (len(sift.match(photograph(0), photograph(seed), long_side=320)) for seed in (0, 1))
    assert other < own / 8  # discs look alike


def test_matches_are_one_to_one_and_the_same_twice(sift):
    images = photograph(), np.roll(photograph(), 9, 1)
    found, again = (sift.match(*images, long_side=320) for _ in range(2))
    assert torch.equal(found.mkpts0, again.mkpts0) and torch.equal(found.scores, again.scores)
    for points in (found.mkpts0, found.mkpts1):
        assert len(torch.unique(points, dim=0)) > 0.8 * len(points)  # a place may have two directions


@pytest.mark.parametrize("empty", [np.full((60, 80, 3), 90, np.uint8), np.eye(60, 80, dtype=np.uint8) * 3])
def test_an_image_without_keypoints_gives_no_matches(sift, empty):
    assert len(sift.match(empty, photograph())) == len(sift.match(photograph(), empty)) == 0


def test_the_number_of_keypoints_is_kept(sift):
    assert len(sift.match(photograph(), photograph(), max_keypoints=20)) <= 21  # ties in strength


def test_nothing_is_trained(sift):
    assert MATCHERS.get("sift") is type(sift.matcher)
    with pytest.raises(ConfigError, match="nothing to train"):
        sift.matcher.loss(None)
    assert sift.licence == "Apache-2.0"
