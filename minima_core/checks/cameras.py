"""Whether cameras, poses and homographies are what they claim to be; NaN and inf give a finding, never a crash."""

from __future__ import annotations

import numpy as np

from minima_core.geometry.camera import homogeneous
from minima_core.geometry.homography import corners


def pose_error(T_w2c: np.ndarray) -> float:
    """Return how far a (4, 4) pose is from a rigid motion; inf where it is not finite.

    The largest of |R R^T - I|, |det R - 1| and the difference of the last row from (0, 0, 0, 1).
    """
    if not np.isfinite(T_w2c).all():
        return float("inf")
    R = T_w2c[:3, :3]
    rows = np.abs(R @ R.T - np.eye(3)).max()
    return float(max(rows, abs(np.linalg.det(R) - 1), np.abs(T_w2c[3] - [0, 0, 0, 1]).max()))


def camera_problem(K: np.ndarray, size: tuple[int, int]) -> str:
    """Return why a (3, 3) K cannot be the camera of an image of ``size`` = (W, H), "" where it can."""
    if not np.isfinite(K).all():
        return "K is not finite"
    if not np.allclose(K[2], [0, 0, 1]) or K[1, 0] != 0:
        return "K is not upper triangular with K[2,2] = 1"
    if K[0, 0] <= 0 or K[1, 1] <= 0:
        return "focal length not positive"
    centre = K[:2, 2] / np.asarray(size)
    return "" if (centre > -0.5).all() and (centre < 1.5).all() else "principal point far outside the image"


def homography_problem(H_0to1: np.ndarray, size: tuple[int, int]) -> str:
    """Return why a (3, 3) homography cannot relate views of an image of ``size`` = (W, H), "" where it can."""
    if not np.isfinite(H_0to1).all():
        return "H is not finite"
    w = homogeneous(corners(size)).numpy() @ H_0to1[2]
    if not (w > 1e-9).all():
        return "H sends a corner of the image to infinity"
    return "" if np.linalg.det(H_0to1) > 1e-9 else "H mirrors or flattens the image"
