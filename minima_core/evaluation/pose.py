"""The relative pose that matches imply, by poselib's LO-RANSAC on the essential matrix."""

from __future__ import annotations

import numpy as np
import poselib

from minima_core.evaluation.estimate import Estimate, failed, refusal
from minima_core.evaluation.protocol import Ransac


def estimate_pose(kpts0: np.ndarray, kpts1: np.ndarray, K0: np.ndarray, K1: np.ndarray, settings: Ransac) -> Estimate:
    """Return the (4, 4) pose of camera 0 in camera 1, its translation of unit length.

    Args:
        kpts0: (N, 2) pixels of image 0.
        kpts1: (N, 2) pixels of image 1, partner by partner.
        K0: (3, 3) intrinsics without skew.
        K1: likewise.
        settings: threshold on the Sampson distance in pixels, and the seed: equal input gives an equal result.
    """
    reason = refusal(kpts0, kpts1, settings)
    if reason:
        return failed(kpts0, reason)
    pose, facts = poselib.estimate_relative_pose(
        kpts0.astype(np.float64),
        kpts1.astype(np.float64),
        _camera(K0),
        _camera(K1),
        {**settings.options(), "max_epipolar_error": settings.threshold},
        {},
    )
    R, t = np.asarray(pose.R), np.asarray(pose.t)
    inliers = np.asarray(facts["inliers"], dtype=bool)
    if inliers.sum() < settings.min_matches or not np.isfinite(R).all() or not np.linalg.norm(t) > 0:
        return failed(kpts0, "no pose found")
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, t / np.linalg.norm(t)
    return Estimate(T, inliers)


def _camera(K: np.ndarray) -> dict[str, object]:
    focal_and_centre = [float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])]
    return {"model": "PINHOLE", "width": 0, "height": 0, "params": focal_and_centre}
