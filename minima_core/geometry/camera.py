"""The pinhole camera: pixels to rays and back."""

from __future__ import annotations

import torch


def homogeneous(points: torch.Tensor) -> torch.Tensor:
    """Append a one to (..., D) points."""
    return torch.cat([points, torch.ones_like(points[..., :1])], -1)


def unproject(points: torch.Tensor, depth: torch.Tensor, K: torch.Tensor) -> torch.Tensor:
    """Return (..., N, 3) camera coordinates of (..., N, 2) pixels at z ``depth`` (..., N); ``K`` is (..., 3, 3)."""
    rays = homogeneous(points) @ torch.linalg.inv(K).mT
    return rays * depth[..., None]


def project(points: torch.Tensor, K: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (..., N, 2) pixels and (..., N) z of (..., N, 3) camera coordinates; pixels of z <= 0 are NaN."""
    z = points[..., 2]
    pixels = points @ K.mT
    safe = torch.where(z > 0, z, torch.full_like(z, float("nan")))
    return pixels[..., :2] / safe[..., None], z
