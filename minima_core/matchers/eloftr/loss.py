"""Efficient LoFTR's fine losses: which pixel of a matched cell, and which part of that pixel.

The authors published no training code; this is what section 3.4 of the paper (Wang et al., CVPR 2024) says: the mean
negative log likelihood of the true pixels, and the squared distance of the refined points, weighted 1 and 0.25.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from minima_core.geometry.cells import CELL, ORIGIN
from minima_core.matchers._semidense import Ids
from minima_core.matchers.eloftr.network import WINDOW, Fine, subpixel
from minima_core.supervision.coarse import EPS, grid_targets, mean_by_pair

if TYPE_CHECKING:
    from minima_core.data.image_pairs import ImageBatch

PART_WEIGHT = 0.25  # of the squared distance
# the first fine feature stands for a point half a window before the first cell's
FINE_ORIGIN = ORIGIN - (WINDOW - 1) / 2


@dataclass(frozen=True)
class FineTargets:
    """K pairs of pixels that are the same point, in the windows of matched cells.

    Attributes:
        m: (K,) the match.
        pixel0: (K,) pixel of its window in image 0, row by row.
        pixel1: (K,) likewise in image 1.
        offset: (K, 2) from that pixel's point to the true one, at most half a pixel along either axis.
    """

    m: torch.Tensor
    pixel0: torch.Tensor
    pixel1: torch.Tensor
    offset: torch.Tensor


def fine_targets(batch: ImageBatch, ids: Ids) -> FineTargets:
    """Return which pixels of matched cells are each other's nearest, where both lie in the windows of the match."""
    b_ids, i_ids, j_ids = ids
    pixels = grid_targets(batch, step=1, origin=FINE_ORIGIN)
    side = batch.image0.shape[-1]
    step = torch.arange(WINDOW, device=i_ids.device)
    rows = (i_ids // (side // CELL) * WINDOW)[:, None, None] + step[:, None]
    columns = (i_ids % (side // CELL) * WINDOW)[:, None, None] + step
    flat = (rows * side + columns).flatten(1)  # (M, P) pixels of image 0
    partner = pixels.partner0[b_ids[:, None], flat]
    y, x = partner // side, partner % side
    inside = (partner >= 0) & (y // WINDOW * (side // CELL) + x // WINDOW == j_ids[:, None])
    m, pixel0 = torch.where(inside)
    y, x = y[m, pixel0], x[m, pixel0]
    points = torch.stack([x, y], -1) + FINE_ORIGIN
    offset = pixels.warped0[b_ids[m], flat[m, pixel0]] - points
    return FineTargets(m, pixel0, y % WINDOW * WINDOW + x % WINDOW, offset)


def fine_losses(fine: Fine, targets: FineTargets, b_ids: torch.Tensor, pairs: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (B,) losses of the pixels and of their parts, unweighted; ``b_ids`` (M,) are the matches' pairs."""
    of_pair = b_ids[targets.m]
    p = fine.probability[targets.m, targets.pixel0, targets.pixel1].float().clamp(EPS, 1 - EPS)
    squared = (subpixel(fine, targets.m, targets.pixel0, targets.pixel1).float() - targets.offset).square().sum(1)
    return mean_by_pair(-p.log(), of_pair, pairs), mean_by_pair(squared, of_pair, pairs)
