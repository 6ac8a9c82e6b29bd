"""The homography that matches imply."""

from __future__ import annotations

import cv2
import numpy as np
import poselib

from minima_core.evaluation.estimate import Estimate, failed, refusal
from minima_core.evaluation.protocol import OpenCv, PoseLib


def estimate_homography(kpts0: np.ndarray, kpts1: np.ndarray, settings: PoseLib | OpenCv) -> Estimate:
    """Return the (3, 3) homography from image 0 to image 1.

    Args:
        kpts0: (N, 2) pixels of image 0.
        kpts1: (N, 2) pixels of image 1, partner by partner.
        settings: which estimator, and its threshold on the reprojection error in pixels; equal input gives an equal
            result.
    """
    if reason := refusal(kpts0, kpts1, settings):
        return failed(kpts0, reason)
    H, inliers = _poselib(kpts0, kpts1, settings) if isinstance(settings, PoseLib) else _opencv(kpts0, kpts1, settings)
    return failed(kpts0, "no homography found") if H is None else Estimate(H, inliers)


def _poselib(kpts0: np.ndarray, kpts1: np.ndarray, settings: PoseLib) -> tuple[np.ndarray | None, np.ndarray]:
    """Return H with positive w at its inliers, and those."""
    H, facts = poselib.estimate_homography(
        kpts0.astype(np.float64),
        kpts1.astype(np.float64),
        {**settings.options(), "max_reproj_error": settings.threshold},
        {},
    )
    inliers = np.asarray(facts["inliers"], dtype=bool)
    if inliers.sum() < settings.min_matches or not np.isfinite(H).all() or abs(np.linalg.det(H)) < 1e-15:
        return None, inliers
    # a homography has no scale; its sign decides which points count as lying behind
    w = np.median(np.column_stack([kpts0[inliers], np.ones(inliers.sum())]) @ H[2])
    return (H / w if w else None), inliers


def _opencv(kpts0: np.ndarray, kpts1: np.ndarray, settings: OpenCv) -> tuple[np.ndarray | None, np.ndarray]:
    """Return H as OpenCV scales it, and its inliers."""
    try:
        H, mask = cv2.findHomography(
            kpts0.astype(np.float32),
            kpts1.astype(np.float32),
            cv2.RANSAC,
            settings.threshold,
            maxIters=settings.max_iterations,
            confidence=settings.confidence,
        )
    except cv2.error:  # how it says that the points are degenerate
        return None, np.zeros(len(kpts0), bool)
    return (None if H is None or not np.isfinite(H).all() else H), np.asarray(mask, dtype=bool).ravel()
