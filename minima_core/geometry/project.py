"""Points of one view seen in another, through depth and pose."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from minima_core.geometry.camera import project, unproject
from minima_core.geometry.coords import to_grid
from minima_core.geometry.pose import transform


def sample_depth(depth: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return (B, N) depth at (B, N, 2) pixels of (B, H, W) maps, NaN where unknown or outside.

    Bilinear; where one of the four neighbours is unknown, the nearest one (glue-factory's rule,
    spec/training.md section 3.3).
    """
    size = (depth.shape[-1], depth.shape[-2])
    holes = torch.where(depth > 0, depth, torch.nan)[:, None]
    grid = to_grid(points, size)[:, None]
    found = F.grid_sample(holes, grid, mode="bilinear", align_corners=False)[:, 0, 0]
    if bool((unknown := ~found.isfinite()).any()):
        nearest = F.grid_sample(holes, grid, mode="nearest", align_corners=False)[:, 0, 0]
        found = torch.where(unknown, nearest, found)
    return torch.where(inside(points, size) & (found > 0), found, torch.nan)


def inside(points: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Say which (..., 2) pixels lie on an image of ``size`` = (W, H)."""
    x, y = points[..., 0], points[..., 1]
    return (x >= 0) & (y >= 0) & (x <= size[0] - 1) & (y <= size[1] - 1)


def warp_points(
    points0: torch.Tensor, depth0: torch.Tensor, K0: torch.Tensor, K1: torch.Tensor, T_0to1: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where (B, N, 2) pixels of view 0 fall in view 1, and their (B, N) z there.

    ``depth0`` is (B, N) at the points; NaN where it is unknown or the point lies behind camera 1.
    """
    pixels, z = project(transform(T_0to1, unproject(points0, depth0, K0)), K1)
    return pixels, z
