"""Matchers that know the answer for the toy benchmark of conftest.py."""

from __future__ import annotations

import threading

import torch

from minima_core.geometry.homography import warp_homography
from minima_core.random import rng
from minima_core.types import Matches

H = torch.tensor([[1.0, 0.02, 5], [-0.01, 1.0, 3], [0, 0, 1]], dtype=torch.float64)
SIZE = (96, 64)


class Oracle:
    """Knows the homography; every fifth pair gets no answer, and after ``fail_after`` calls it is killed."""

    sparse = True

    def __init__(self, fail_after: int | None = None) -> None:
        self.calls = 0
        self.fail_after = fail_after
        self.lock = threading.Lock()

    def match(self, image0, image1, *, max_keypoints=None, long_side=None):
        with self.lock:
            self.calls += 1
            if self.fail_after is not None and self.calls > self.fail_after:
                raise KeyboardInterrupt
        number = round(float(image0[0, 0, 0]) * 255)  # the first pixel carries the pair's number
        kpts0 = torch.from_numpy(rng(number, "oracle").uniform([0, 0], SIZE, (40, 2))).float()
        if number % 5 == 4:
            return Matches.empty()
        return Matches(kpts0, warp_homography(H, kpts0.double()).float(), torch.linspace(0, 1, 40))


class FeatureOracle(Oracle):
    """The same, in two steps."""

    def extract(self, image, *, max_keypoints=None, long_side=None):
        return image

    def match_features(self, features0, features1):
        return self.match(features0, features1)
