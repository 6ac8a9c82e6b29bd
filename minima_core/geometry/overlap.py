"""How much of one view another view sees, from depth and poses or from a homography."""

from __future__ import annotations

import torch

from minima_core.geometry.homography import warp_homography
from minima_core.geometry.pose import relative_pose
from minima_core.geometry.project import inside, warp_points

TOLERANCE = 0.05  # share of z by which two depth maps may differ at the same point; sensors differ by 1 to 3 %


def grid(size: tuple[int, int], step: int) -> torch.Tensor:
    """Return (N, 2) float64 pixels (x, y), every ``step``-th of an image of ``size`` = (W, H), centred."""
    w, h = size
    x = torch.arange((w - 1) % step // 2, w, step, dtype=torch.float64)
    y = torch.arange((h - 1) % step // 2, h, step, dtype=torch.float64)
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).reshape(-1, 2)


def depth_overlap(
    depths: list[torch.Tensor], K: torch.Tensor, T_w2c: torch.Tensor, pairs: torch.Tensor, *, step: int = 8
) -> torch.Tensor:
    """Return (M,) float64: the share of view i's known depth that view j sees at the same depth, for each pair (i, j).

    A point counts where it falls into view j and its z there agrees with view j's own depth to ``TOLERANCE``; points
    that something hides, and points on which view j knows nothing, do not count.

    Args:
        depths: N maps (H, W), 0 where unknown.
        K: (N, 3, 3) float64.
        T_w2c: (N, 4, 4) float64.
        pairs: (M, 2) int64.
        step: distance of the sampled pixels.
    """
    points = {shape: grid((shape[1], shape[0]), step) for shape in {tuple(d.shape) for d in depths}}
    found = []
    for i, j in pairs.tolist():
        at = points[tuple(depths[i].shape)]
        z0 = depths[i][at[:, 1].long(), at[:, 0].long()].double()
        known = z0 > 0
        if not bool(known.any()):
            found.append(0.0)
            continue
        there, z1 = warp_points(at[known][None], z0[known][None], K[i], K[j], relative_pose(T_w2c[i], T_w2c[j]))
        seen = _nearest(depths[j], there[0])
        found.append(float(((z1[0] - seen).abs() <= TOLERANCE * seen).double().mean()))
    return torch.tensor(found, dtype=torch.float64)


def _nearest(depth: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Return (N,) float64 depth at the pixels nearest to (N, 2) points, NaN where unknown or outside.

    To tell whether two surfaces are the same, interpolation would add nothing; it costs a pass over the whole map.
    """
    h, w = depth.shape
    x, y = (points.nan_to_num(-9.0).clamp(-9, max(h, w) + 9).round().long()).unbind(-1)
    within = (x >= 0) & (y >= 0) & (x < w) & (y < h)
    found = depth[y.clamp(0, h - 1), x.clamp(0, w - 1)].double()
    return torch.where(within & (found > 0), found, torch.full_like(found, torch.nan))


def homography_overlap(H_0to1: torch.Tensor, size0: tuple[int, int], size1: tuple[int, int], *, step: int = 8) -> float:
    """Return the share of image 0's pixels that (3, 3) ``H_0to1`` maps into image 1; sizes are (W, H)."""
    return float(inside(warp_homography(H_0to1, grid(size0, step)), size1).double().mean())
