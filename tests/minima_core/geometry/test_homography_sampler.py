from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from minima_core.evaluation.benchmarks.mmim_warped import warp
from minima_core.geometry.homography_sampler import published_homography, sample_homography
from minima_core.random import rng

PARITY = Path(__file__).resolve().parents[4] / "shared/data/parity/homography.npz"


def corners_of_patch(H: np.ndarray) -> np.ndarray:
    """Where the middle of a 640 x 480 image came from."""
    low, high = np.array([64, 48]), np.array([576, 432])
    patch = np.array([low, (low[0], high[1]), high, (high[0], low[1])])
    back = np.column_stack([patch, np.ones(4)]) @ np.linalg.inv(H).T
    return back[:, :2] / back[:, 2:]


def test_the_middle_always_came_from_inside_the_image():
    places = np.stack([corners_of_patch(sample_homography((640, 480), rng(1, k))) for k in range(100)])
    assert places.min() > -1e-3
    assert (places <= [640, 480]).all()
    assert places.std(0).min() > 10


@pytest.mark.skipif(not PARITY.is_file(), reason=f"no {PARITY}")
def test_homographies_and_warps_are_the_published_ones():
    with np.load(PARITY) as known:
        for seed, H in zip(known["seeds"], known["H"], strict=True):
            drawn = sample_homography((640, 480), np.random.RandomState(seed))
            assert np.allclose(drawn, H, rtol=1e-4, atol=1e-6), seed
        for path, H in zip(known["paths"], known["H"], strict=True):
            assert np.allclose(published_homography((640, 480), str(path)), H, rtol=1e-4, atol=1e-6), path
        for k in range(3):
            warped = warp(known["warp_image_rgb_96x128"], known[f"warp{k}_H"].astype(np.float64))
            assert np.abs(warped - known[f"warp{k}_result_float255"]).max() < 0.51
