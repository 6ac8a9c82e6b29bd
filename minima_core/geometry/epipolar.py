"""Essential and fundamental matrices, and distances to epipolar lines."""

from __future__ import annotations

import torch

from minima_core.geometry.camera import homogeneous


def skew(t: torch.Tensor) -> torch.Tensor:
    """Return (..., 3, 3) with skew(t) x = t cross x."""
    zero = torch.zeros_like(t[..., 0])
    rows = [zero, -t[..., 2], t[..., 1], t[..., 2], zero, -t[..., 0], -t[..., 1], t[..., 0], zero]
    return torch.stack(rows, -1).reshape(*t.shape[:-1], 3, 3)


def essential(T_0to1: torch.Tensor) -> torch.Tensor:
    """Return (..., 3, 3) E with x1^T E x0 = 0 for normalised points."""
    return skew(T_0to1[..., :3, 3]) @ T_0to1[..., :3, :3]


def fundamental(T_0to1: torch.Tensor, K0: torch.Tensor, K1: torch.Tensor) -> torch.Tensor:
    """Return (..., 3, 3) F with x1^T F x0 = 0 for pixels."""
    return torch.linalg.inv(K1).mT @ essential(T_0to1) @ torch.linalg.inv(K0)


def symmetric_distances(points0: torch.Tensor, points1: torch.Tensor, F_0to1: torch.Tensor) -> torch.Tensor:
    """Return (..., M, N): the mean of both point-to-line distances in pixels, (..., M, 2) against (..., N, 2)."""
    x0, x1 = homogeneous(points0), homogeneous(points1)
    lines1 = x0 @ F_0to1.mT  # (..., M, 3) lines in image 1
    lines0 = x1 @ F_0to1  # (..., N, 3) lines in image 0
    residual = (lines1 @ x1.mT).abs()
    d1 = residual / lines1[..., :2].norm(dim=-1)[..., :, None].clamp(min=1e-12)
    d0 = residual / lines0[..., :2].norm(dim=-1)[..., None, :].clamp(min=1e-12)
    return (d0 + d1) / 2
