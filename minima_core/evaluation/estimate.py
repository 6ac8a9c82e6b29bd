"""What a robust estimator gives back: a model with its inliers, or the reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from minima_core.evaluation.protocol import OpenCv, PoseLib


@dataclass(frozen=True)
class Estimate:
    """The outcome for one pair.

    Attributes:
        model: (4, 4) pose or (3, 3) homography, float64; None where none was found.
        inliers: (N,) bool, which matches agree with it; all False where there is none.
        failure: why there is no model, "" where there is one.
    """

    model: np.ndarray | None
    inliers: np.ndarray
    failure: str = ""


def failed(kpts0: np.ndarray, reason: str) -> Estimate:
    """Return an estimate that says why ``kpts0`` and its partners gave no model."""
    return Estimate(None, np.zeros(len(kpts0), bool), reason)


def refusal(kpts0: np.ndarray, kpts1: np.ndarray, settings: PoseLib | OpenCv) -> str:
    """Say why (N, 2) and (N, 2) points must not go to an estimator, "" where they may.

    poselib answers too few points with uninitialised numbers, so they never reach an estimator.
    """
    if len(kpts0) < settings.min_matches:
        return f"too few matches ({len(kpts0)} of {settings.min_matches})"
    if not (np.isfinite(kpts0).all() and np.isfinite(kpts1).all()):
        return "matches that are not finite"
    return ""
