"""The homography that matches imply, by poselib's LO-RANSAC."""

from __future__ import annotations

import numpy as np
import poselib

from minima_core.evaluation.estimate import Estimate, failed, refusal
from minima_core.evaluation.protocol import Ransac


def estimate_homography(kpts0: np.ndarray, kpts1: np.ndarray, settings: Ransac) -> Estimate:
    """Return the (3, 3) homography from image 0 to image 1, with positive w at its inliers.

    Args:
        kpts0: (N, 2) pixels of image 0.
        kpts1: (N, 2) pixels of image 1, partner by partner.
        settings: threshold on the reprojection error in pixels, and the seed: equal input gives an equal result.
    """
    reason = refusal(kpts0, kpts1, settings)
    if reason:
        return failed(kpts0, reason)
    H, facts = poselib.estimate_homography(
        kpts0.astype(np.float64),
        kpts1.astype(np.float64),
        {**settings.options(), "max_reproj_error": settings.threshold},
        {},
    )
    inliers = np.asarray(facts["inliers"], dtype=bool)
    if inliers.sum() < settings.min_matches or not np.isfinite(H).all() or abs(np.linalg.det(H)) < 1e-15:
        return failed(kpts0, "no homography found")
    # a homography has no scale; its sign decides which points count as lying behind
    w = np.median(np.column_stack([kpts0[inliers], np.ones(inliers.sum())]) @ H[2])
    return Estimate(H / w, inliers) if w else failed(kpts0, "no homography found")
