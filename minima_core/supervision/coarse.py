"""Which cells of two images are the same place, and the loss that asks for it: labels for semi-dense matchers.

Rules of spec/training.md sections 4.3 and 4.4. Two cells are a match if the way from one leads to the other and the
way back to the first. Where ours departs: what is unknown is said by masks, where the reference sends it to cell 0 and
leaves that cell out; depth between pixels is interpolated, where the reference takes the nearest pixel's; losses are
means of the pairs' means, where the reference takes one over all matches of a batch, so that the size of a micro batch
does not weigh the pairs, and a pair without a match has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from minima_core.geometry.cells import CELL, ORIGIN, grid_points
from minima_core.supervision.warp import warp
from minima_core.types import UNMATCHED

if TYPE_CHECKING:
    from minima_core.data.image_pairs import ImageBatch

ALPHA, GAMMA = 0.25, 2.0  # of the focal loss
EPS = 1e-6  # probabilities are kept this far from 0 and 1


@dataclass(frozen=True)
class CoarseTargets:
    """Where the cells of images 0 are in images 1; L cells an image, row by row.

    Attributes:
        partner0: (B, L) int64, the matching cell of image 1, or UNMATCHED.
        warped0: (B, L, 2) pixels of image 1 that the cells' points lie at.
        valid0: (B, L) bool, those pixels are known.
        mask0: (B, L) bool, cells of image 0 that are not padding.
        mask1: (B, L) bool, likewise of image 1.
    """

    partner0: torch.Tensor
    warped0: torch.Tensor
    valid0: torch.Tensor
    mask0: torch.Tensor
    mask1: torch.Tensor

    def matches(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (M,) pair of the batch, cell of image 0 and cell of image 1 of all matches."""
        b_ids, i_ids = torch.where(self.partner0 >= 0)
        return b_ids, i_ids, self.partner0[b_ids, i_ids]


def coarse_targets(batch: ImageBatch) -> CoarseTargets:
    """Return the targets of square images whose side is a multiple of ``CELL``; there is no test for occlusion."""
    return grid_targets(batch, step=CELL, origin=ORIGIN)


def grid_targets(batch: ImageBatch, *, step: int, origin: float) -> CoarseTargets:
    """Return the targets of cells that are ``step`` pixels apart, the first of which stands for (origin, origin)."""
    side = batch.image0.shape[-1] // step
    points = grid_points(side, side, step=step, origin=origin, device=batch.image0.device).expand(len(batch), -1, -1)
    warped0, valid0 = warp(points, batch)
    warped1, valid1 = warp(points, batch.swap())
    mask0, mask1 = (mask[:, ::step, ::step].flatten(1) for mask in (batch.mask0, batch.mask1))
    nearest0, nearest1 = (_nearest_cell((warped - origin) / step, side) for warped in (warped0, warped1))
    there = valid0 & (nearest0 >= 0)
    landing = nearest0.clamp(min=0)
    known_back = valid1.gather(1, landing)
    returned = nearest1.gather(1, landing) == torch.arange(side * side, device=points.device)
    partner0 = torch.where(there & known_back & returned, nearest0, UNMATCHED)
    return CoarseTargets(partner0, warped0, valid0, mask0, mask1)


def focal_loss(confidence: torch.Tensor, targets: CoarseTargets) -> torch.Tensor:
    """Return (B,): the focal loss of (B, L, L) match probabilities, the mean over matches plus the mean over the rest.

    Padding does not count. A pair without any match has zero, with a gradient: whether its cells match is not known.
    """
    p = confidence.float().clamp(EPS, 1 - EPS)
    b_ids, i_ids, j_ids = targets.matches()
    known = torch.zeros(len(p), dtype=torch.bool, device=p.device).index_fill(0, b_ids, True)
    weight = (targets.mask0[:, :, None] & targets.mask1[:, None, :] & known[:, None, None]).float()
    # the matches' share is taken out of the sum and of the count instead of out of the (B, L, L) mask
    weight[b_ids, i_ids, j_ids] = 0.0
    negative = ((-ALPHA * p**GAMMA * torch.log1p(-p)) * weight).sum((1, 2)) / weight.sum((1, 2)).clamp(min=1)
    at_match = p[b_ids, i_ids, j_ids]
    return mean_by_pair(-ALPHA * (1 - at_match) ** GAMMA * at_match.log(), b_ids, len(p)) + negative


def mean_by_pair(values: torch.Tensor, b_ids: torch.Tensor, pairs: int) -> torch.Tensor:
    """Return the (B,) means of (M,) values that belong to pairs ``b_ids`` (M,); 0 for a pair that has none."""
    sums = values.new_zeros(pairs).index_add(0, b_ids, values)
    counts = values.new_zeros(pairs).index_add(0, b_ids, torch.ones_like(values))
    return sums / counts.clamp(min=1)


def _nearest_cell(places: torch.Tensor, side: int) -> torch.Tensor:
    """Return the (B, N) cell nearest to (B, N, 2) places counted in cells, -1 where there is none."""
    x, y = places.round().long().unbind(-1)
    within = (x >= 0) & (y >= 0) & (x < side) & (y < side)
    return torch.where(within, y * side + x, -1)
