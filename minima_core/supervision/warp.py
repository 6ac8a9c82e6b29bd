"""Where points of one image lie in the other, for whole batches: through depth and pose, or by a homography."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from minima_core.geometry.homography import warp_homography
from minima_core.geometry.project import sample_depth, warp_points

if TYPE_CHECKING:
    from minima_core.data.image_pairs import ImageBatch


@torch.no_grad()
def warp(
    points0: torch.Tensor, batch: ImageBatch, *, tolerance: float | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B, N, 2) pixels of image 1 for (B, N, 2) pixels of image 0, and which of them are known (B, N).

    A point is known if it lies on image 0, has depth where depth relates the pair, and falls in front of camera 1 and
    on image 1, edges included; the pixels of others mean nothing but are finite. ``batch.swap()`` gives the other way.

    Args:
        points0: pixels of image 0.
        batch: how the images relate.
        tolerance: largest share of image 1's depth by which a point's z there may differ from it, for pairs that depth
            relates: what something hides is not known then. None for no such test.
    """
    points0 = points0.float()
    # between the outermost pixels' centres and the edge there is nothing to interpolate
    depth0 = sample_depth(batch.depth0, _clamped(points0, batch.size0))
    through_depth, z1 = warp_points(points0, depth0, batch.K0, batch.K1, batch.T_0to1)
    by_homography = warp_homography(batch.H_0to1, points0)
    points1 = torch.where(batch.planar[:, None, None], by_homography, through_depth)
    points1 = points1.nan_to_num(-1.0, -1.0, -1.0)
    valid = _shown(points0, batch.mask0, batch.size0) & _shown(points1, batch.mask1, batch.size1)
    if tolerance is not None:
        seen = sample_depth(batch.depth1, _clamped(points1, batch.size1))
        valid &= batch.planar[:, None] | ((z1 - seen).abs() < tolerance * seen)
    return points1, valid


def on_image(points: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """Say which of (B, N, 2) pixels lie on images of (B, 2) width and height, up to their edges; NaN does not."""
    return ((points >= -0.5) & (points <= size[:, None] - 0.5)).all(-1)


def _shown(points: torch.Tensor, mask: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """Say which of (B, N, 2) pixels lie on images whose area is what (B, S, S) masks say."""
    x, y = _clamped(points, size).round().long().unbind(-1)
    return on_image(points, size) & mask.flatten(1).gather(1, y * mask.shape[-1] + x)


def _clamped(points: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    return torch.minimum(points.clamp(min=0), size[:, None] - 1.0)
