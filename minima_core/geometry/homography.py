"""Homographies: apply, and how far two of them are apart."""

from __future__ import annotations

import numpy as np
import torch

from minima_core.geometry.camera import homogeneous


def warp_homography(H_0to1: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Apply (..., 3, 3) to (..., N, 2); NaN for points that go to infinity or behind."""
    warped = homogeneous(points) @ H_0to1.mT
    w = warped[..., 2:]
    return warped[..., :2] / torch.where(w > 1e-9, w, torch.full_like(w, float("nan")))


def corners(size: tuple[int, int]) -> torch.Tensor:
    """Return the (4, 2) float64 corner pixels of an image of ``size`` = (W, H), clockwise from the top left."""
    w, h = size
    return torch.tensor([[0, 0], [w - 1, 0], [w - 1, h - 1], [0, h - 1]], dtype=torch.float64)


def corner_error(H_est: torch.Tensor, H_gt: torch.Tensor, size: tuple[int, int]) -> float:
    """Return the mean distance in pixels of the four corners of image 0 under both; inf where one is degenerate."""
    points = corners(size)
    distance = (warp_homography(H_est.double(), points) - warp_homography(H_gt.double(), points)).norm(dim=-1).mean()
    return float(distance) if bool(distance.isfinite()) else float("inf")


def reordered_corner_error(H_est: torch.Tensor, H_gt: torch.Tensor, size: tuple[int, int]) -> float:
    """Return what the published evaluation calls the corner error; inf where a corner goes to infinity.

    Both quadrilaterals are sorted before they are compared (spec/evaluation.md section 3): the corner nearest the top
    left by x + y, the one by y - x, and their opposites, stored in single precision. Flips and quarter turns pass as
    right answers, and a corner may be used twice; nothing looks whether a corner lies behind.
    """
    points = corners(size)[[0, 1, 3, 2]].numpy()  # row by row: the order decides where two corners tie
    sorted_est, sorted_gt = (_reordered(points, H.double().numpy()) for H in (H_est, H_gt))
    distance = float(np.linalg.norm(sorted_est - sorted_gt, axis=1).mean())
    return distance if np.isfinite(distance) else float("inf")


def _reordered(points: np.ndarray, H: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        warped = np.column_stack([points, np.ones(4)]) @ H.T
        quad = warped[:, :2] / warped[:, 2:]
    total, difference = quad.sum(1), quad[:, 1] - quad[:, 0]
    return quad[[total.argmin(), difference.argmin(), total.argmax(), difference.argmax()]].astype(np.float32)
