"""Homographies: apply, and how far two of them are apart."""

from __future__ import annotations

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
