"""Where every pixel of one image lies in the other: the labels of dense matchers (spec/training.md section 5.3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from minima_core.data.image_pairs import ImageBatch
from minima_core.geometry.coords import from_corner_origin, to_grid
from minima_core.supervision.warp import warp, warp_pixels

FAR = 2.0  # in units of [-1, 1]; what lies further outside is moved here, where sums stay finite
TOLERANCE = 0.05  # of the depth, by which a point may lie off the surface that image 1 sees


@dataclass(frozen=True)
class DenseTargets:
    """Labels of a batch on a grid over its images 0.

    Attributes:
        warp_0to1: (B, h, w, 2) where each cell's centre lies in image 1, in [-1, 1]; finite everywhere.
        certainty: (B, h, w) float32, 1 where that is known and image 1 sees the same surface there, else 0.
    """

    warp_0to1: torch.Tensor
    certainty: torch.Tensor


def dense_targets(batch: ImageBatch, size: tuple[int, int]) -> DenseTargets:
    """Return the labels of a grid of ``size`` = (w, h) cells."""
    side = batch.image0.shape[-1]
    w, h = size
    if size == (side, side):
        points1, known = warp_pixels(batch, tolerance=TOLERANCE)
    else:
        ys, xs = ((torch.arange(n, device=batch.image0.device) + 0.5) * (side / n) for n in (h, w))
        centres = from_corner_origin(torch.stack(torch.meshgrid(xs, ys, indexing="xy"), -1)).reshape(1, -1, 2)
        points1, known = warp(centres.expand(len(batch), -1, -1), batch, tolerance=TOLERANCE)
    return DenseTargets(
        to_grid(points1, (side, side)).clamp(-FAR, FAR).reshape(len(batch), h, w, 2),
        known.float().reshape(len(batch), h, w),
    )
