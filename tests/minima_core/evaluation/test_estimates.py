from __future__ import annotations

import numpy as np
import pytest
import torch

from minima_core.evaluation.homography import estimate_homography
from minima_core.evaluation.metrics import pose_error
from minima_core.evaluation.pose import estimate_pose
from minima_core.evaluation.protocol import PROTOCOLS, get_protocol
from minima_core.geometry.homography import corner_error
from minima_core.random import rng

PROTOCOL = get_protocol("strict-v1")
BOTH = pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=list(PROTOCOLS))
K0 = np.array([[500.0, 0, 320], [0, 510, 240], [0, 0, 1]])
K1 = np.array([[700.0, 0, 300], [0, 690, 260], [0, 0, 1]])
H = np.array([[1.1, 0.05, 20], [-0.03, 0.95, -10], [1e-4, -5e-5, 1]])


def scene(n: int, outliers: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """n points seen by two cameras, the first ``outliers`` of them anywhere in image 1; and the pose."""
    random = rng(0, "scene")
    angle = 0.2
    T = np.eye(4)
    T[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
    T[:3, 3] = [-0.8, 0.1, 0.2]
    points = random.uniform([-2, -2, 4], [2, 2, 9], (n, 3))
    seen0, seen1 = points @ K0.T, (points @ T[:3, :3].T + T[:3, 3]) @ K1.T
    kpts0, kpts1 = seen0[:, :2] / seen0[:, 2:], seen1[:, :2] / seen1[:, 2:]
    kpts1[:outliers] = random.uniform([0, 0], [640, 480], (outliers, 2))
    return kpts0, kpts1, T


def plane(n: int, outliers: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = rng(0, "plane")
    kpts0 = random.uniform([0, 0], [640, 480], (n, 2))
    warped = np.column_stack([kpts0, np.ones(n)]) @ H.T
    kpts1 = warped[:, :2] / warped[:, 2:]
    kpts1[:outliers] = random.uniform([0, 0], [640, 480], (outliers, 2))
    return kpts0, kpts1


@BOTH
@pytest.mark.parametrize("outliers", [0, 100])
def test_a_noise_free_pose_comes_back(protocol, outliers):
    kpts0, kpts1, T = scene(300, outliers)
    found = estimate_pose(kpts0, kpts1, K0, K1, protocol.pose)
    assert found.model is not None
    assert not found.failure
    assert pose_error(torch.from_numpy(found.model), torch.from_numpy(T)) < 0.01
    assert found.inliers[outliers:].all()


@BOTH
@pytest.mark.parametrize("outliers", [0, 150])
def test_a_noise_free_homography_comes_back(protocol, outliers):
    kpts0, kpts1 = plane(300, outliers)
    found = estimate_homography(kpts0, kpts1, protocol.homography)
    assert found.model is not None
    assert corner_error(torch.from_numpy(found.model), torch.from_numpy(H), (640, 480)) < 0.01
    assert found.inliers[outliers:].all()


@BOTH
def test_the_same_matches_give_the_same_model_bit_by_bit(protocol):
    kpts0, kpts1, _ = scene(200, 120)
    models = [estimate_pose(kpts0, kpts1, K0, K1, protocol.pose).model for _ in range(3)]
    assert all(np.array_equal(models[0], model) for model in models)
    kpts0, kpts1 = plane(200, 150)
    models = [estimate_homography(kpts0, kpts1, protocol.homography).model for _ in range(3)]
    assert all(np.array_equal(models[0], model) for model in models)


@BOTH
@pytest.mark.parametrize("n", [0, 1, 4])
def test_too_few_matches_for_a_pose_are_a_failure_with_its_reason(protocol, n):
    kpts0, kpts1, _ = scene(n)
    found = estimate_pose(kpts0, kpts1, K0, K1, protocol.pose)
    assert found.model is None
    assert found.failure == f"too few matches ({n} of 5)"
    assert found.inliers.shape == (n,)


@BOTH
@pytest.mark.parametrize("n", [0, 1, 3])
def test_too_few_matches_for_a_homography_are_a_failure_with_its_reason(protocol, n):
    kpts0, kpts1 = plane(n)
    assert estimate_homography(kpts0, kpts1, protocol.homography).failure == f"too few matches ({n} of 4)"


@BOTH
def test_points_on_top_of_each_other_give_no_homography(protocol):
    same = np.full((10, 2), 7.0)
    assert estimate_homography(same, same, protocol.homography).failure == "no homography found"


@BOTH
def test_points_that_are_not_finite_are_refused(protocol):
    kpts0, kpts1 = plane(20)
    kpts1[3] = np.nan
    assert estimate_homography(kpts0, kpts1, protocol.homography).failure == "matches that are not finite"


def test_a_homography_is_returned_with_the_sign_that_keeps_its_inliers_in_front():
    kpts0, kpts1 = plane(100)
    found = estimate_homography(kpts0, kpts1, PROTOCOL.homography)
    assert found.model is not None
    w = np.column_stack([kpts0, np.ones(100)]) @ found.model[2]
    assert (w > 0).all()
