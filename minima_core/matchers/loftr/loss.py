"""LoFTR's fine loss: how far a refined match is from the truth, where the truth lies in its window (spec 4.3, 4.4)."""

from __future__ import annotations

import torch

from minima_core.geometry.cells import cell_points
from minima_core.matchers._semidense import Ids
from minima_core.matchers.loftr.network import Size
from minima_core.supervision.coarse import CoarseTargets, mean_by_pair

# Least spread of a refined match. A small network starts with windows that are sure of one place, by chance: with the
# published bound, it would learn from those few alone, which cannot move.
SPREAD: dict[Size, float] = {"full": 1e-10, "small": 0.1}


def fine_offsets(targets: CoarseTargets, ids: Ids, *, reach: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (M, 2) true offsets of matches from their cell's point in image 1, and which are to be used (M,).

    In units of ``reach`` pixels; to be used are those that are known and less than one unit along either axis.
    """
    b_ids, i_ids, j_ids = ids
    side = round(targets.partner0.shape[1] ** 0.5)
    points = cell_points(side, side, j_ids.device)
    offsets = (targets.warped0[b_ids, i_ids] - points[j_ids]) / reach
    return offsets, targets.valid0[b_ids, i_ids] & (offsets.abs().amax(1) < 1)


def fine_loss(
    expected: torch.Tensor, offsets: torch.Tensor, b_ids: torch.Tensor, pairs: int, *, least: float
) -> torch.Tensor:
    """Return (B,): the mean squared distance of (M, 3) refined matches to (M, 2) true offsets, the surer the heavier.

    No match counts as surer than one whose spread is ``least``. The weights are the inverse spreads over their mean in
    the pair; nothing is learnt through them.
    """
    inverse = 1 / expected[:, 2].detach().float().clamp(min=least)
    weight = inverse / mean_by_pair(inverse, b_ids, pairs)[b_ids]
    squared = (expected[:, :2].float() - offsets).square().sum(1)
    return mean_by_pair(weight * squared, b_ids, pairs)
