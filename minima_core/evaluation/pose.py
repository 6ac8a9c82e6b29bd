"""The relative pose that matches imply, by way of the essential matrix."""

from __future__ import annotations

import cv2
import numpy as np
import poselib

from minima_core.evaluation.estimate import Estimate, failed, refusal
from minima_core.evaluation.protocol import OpenCv, PoseLib


def estimate_pose(
    kpts0: np.ndarray, kpts1: np.ndarray, K0: np.ndarray, K1: np.ndarray, settings: PoseLib | OpenCv
) -> Estimate:
    """Return the (4, 4) pose of camera 0 in camera 1, its translation of unit length.

    Args:
        kpts0: (N, 2) pixels of image 0.
        kpts1: (N, 2) pixels of image 1, partner by partner.
        K0: (3, 3) intrinsics without skew.
        K1: likewise.
        settings: which estimator, and its threshold on the epipolar distance in pixels; equal input gives an equal
            result.
    """
    if reason := refusal(kpts0, kpts1, settings):
        return failed(kpts0, reason)
    if isinstance(settings, PoseLib):
        R, t, inliers = _poselib(kpts0, kpts1, K0, K1, settings)
    else:
        R, t, inliers = _opencv(kpts0, kpts1, K0, K1, settings)
    if R is None or not np.isfinite(R).all() or not np.linalg.norm(t) > 0:
        return failed(kpts0, "no pose found")
    T = np.eye(4)
    T[:3, :3], T[:3, 3] = R, t / np.linalg.norm(t)
    return Estimate(T, inliers)


Found = tuple[np.ndarray | None, np.ndarray, np.ndarray]  # R, t, inliers


def _poselib(kpts0: np.ndarray, kpts1: np.ndarray, K0: np.ndarray, K1: np.ndarray, settings: PoseLib) -> Found:
    pose, facts = poselib.estimate_relative_pose(
        kpts0.astype(np.float64),
        kpts1.astype(np.float64),
        _camera(K0),
        _camera(K1),
        {**settings.options(), "max_epipolar_error": settings.threshold},
        {},
    )
    inliers = np.asarray(facts["inliers"], dtype=bool)
    found = inliers.sum() >= settings.min_matches
    return (np.asarray(pose.R) if found else None), np.asarray(pose.t), inliers


def _camera(K: np.ndarray) -> dict[str, object]:
    focal_and_centre = [float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])]
    return {"model": "PINHOLE", "width": 0, "height": 0, "params": focal_and_centre}


def _opencv(kpts0: np.ndarray, kpts1: np.ndarray, K0: np.ndarray, K1: np.ndarray, settings: OpenCv) -> Found:
    """Do what the published evaluation does (spec/evaluation.md section 3).

    Five points may give several essential matrices, stacked; the one with the most points in front of both cameras
    wins. OpenCV narrows the mask of inliers from one to the next, and so does this.
    """
    rays0, rays1 = _rays(kpts0, K0), _rays(kpts1, K1)
    focal = np.mean([K0[0, 0], K0[1, 1], K1[0, 0], K1[1, 1]])
    nothing: Found = None, np.zeros(3), np.zeros(len(kpts0), bool)
    try:
        E, mask = cv2.findEssentialMat(
            rays0,
            rays1,
            np.eye(3),
            method=cv2.RANSAC,
            prob=settings.confidence,
            threshold=settings.threshold / focal,
            maxIters=settings.max_iterations,
        )
        if E is None or len(E) < 3:
            return nothing
        best, most = nothing, 0
        for candidate in np.split(E, len(E) // 3):
            count, R, t, mask, *_ = cv2.recoverPose(candidate, rays0, rays1, np.eye(3), 1e9, mask=mask)
            if count > most:
                best, most = (R, t[:, 0], mask.ravel() > 0), count
    except cv2.error:  # how it says that the points are degenerate
        return nothing
    return best


def _rays(kpts: np.ndarray, K: np.ndarray) -> np.ndarray:
    """Return (N, 2) float64 normalised coordinates."""
    return (kpts.astype(np.float64) - K[:2, 2]) / K[[0, 1], [0, 1]]
