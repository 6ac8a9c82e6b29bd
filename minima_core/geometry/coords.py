"""Pixel conventions and how to move between them: (x, y), the centre of the top-left pixel is (0, 0)."""

from __future__ import annotations

import torch


def to_corner_origin(points: torch.Tensor) -> torch.Tensor:
    """Convert (..., 2) pixels to COLMAP's and RoMa's convention, where that centre is (0.5, 0.5)."""
    return points + 0.5


def from_corner_origin(points: torch.Tensor) -> torch.Tensor:
    """Convert (..., 2) pixels from COLMAP's and RoMa's convention to ours."""
    return points - 0.5


def rescale_points(points: torch.Tensor, scale: torch.Tensor | tuple[float, float]) -> torch.Tensor:
    """Map (..., 2) pixels of an image to pixels of that image resized by ``scale`` = (sx, sy)."""
    factor = torch.as_tensor(scale, dtype=points.dtype, device=points.device)
    return (points + 0.5) * factor - 0.5


def rescale_K(K: torch.Tensor, scale: tuple[float, float]) -> torch.Tensor:  # noqa: N802, K is its name everywhere
    """Return (..., 3, 3) intrinsics of the image resized by ``scale`` = (sx, sy)."""
    S = scaling(scale, dtype=K.dtype, device=K.device)
    return S @ K


def scaling(
    scale: tuple[float, float], dtype: torch.dtype = torch.float64, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """Return the (3, 3) homography that resizing by ``scale`` applies to pixels: x to (x + 0.5) s - 0.5."""
    sx, sy = scale
    return torch.tensor([[sx, 0, 0.5 * sx - 0.5], [0, sy, 0.5 * sy - 0.5], [0, 0, 1]], dtype=dtype, device=device)


def to_grid(points: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Convert (..., 2) pixels of an image of ``size`` = (W, H) to [-1, 1] for ``grid_sample(align_corners=False)``."""
    wh = torch.tensor(size, dtype=points.dtype, device=points.device)
    return (2 * points + 1) / wh - 1
