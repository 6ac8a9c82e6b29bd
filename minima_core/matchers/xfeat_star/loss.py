"""XFeat*'s losses: which cell, how surely, and which place in it (Potje et al., CVPR 2024, section 3.3).

Two things are not as there. A cell is told from all cells of the other image, as it must be in use, not from those that
match alone. And reliabilities learn which cells were told right, not how probable the true ones are: across modalities
that is next to nothing for all cells at first, and reliabilities that say so of all rank none. The keypoints' loss is
left out, because semi-dense matches need none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from minima_core.geometry.cells import CELL, cell_points
from minima_core.matchers.xfeat_star.network import BINS, MIDDLE, places
from minima_core.supervision.coarse import coarse_targets
from minima_core.supervision.reliability import reliability_loss

if TYPE_CHECKING:
    from minima_core.data.image_pairs import ImageBatch

MOST = 512  # matches of a pair that are learnt from; where there are more, every n-th
TEMPERATURE = 0.2  # similarities are multiplied by it, the authors'
PLACE_WEIGHT = 2.0  # the authors'
RELIABILITY_WEIGHT = 0.5  # as in the joint training


@dataclass(frozen=True)
class Truth:
    """The matches of one pair that are learnt from.

    Attributes:
        cell0: (M,) cells of image 0.
        cell1: (M,) the cells of image 1 that are the same places.
        place: (M,) where in ``network.BINS`` squared the points of image 1's cells lie in image 0, row by row.
        real0: (L,) bool, cells of image 0 that are not padding.
        real1: (L,) bool, likewise of image 1.
    """

    cell0: torch.Tensor
    cell1: torch.Tensor
    place: torch.Tensor
    real0: torch.Tensor
    real1: torch.Tensor


def truths(batch: ImageBatch) -> list[Truth]:
    """Return the matches of each pair: cells of image 1 whose points are nearest to cells of image 0, and back."""
    targets = coarse_targets(batch.swap())
    side = batch.image0.shape[-1] // CELL
    points = cell_points(side, side, batch.image0.device)
    found = []
    for b, partner in enumerate(targets.partner0):
        cell1 = torch.where(partner >= 0)[0]
        number = min(len(cell1), MOST)
        cell1 = cell1[torch.arange(number, device=cell1.device) * len(cell1) // max(number, 1)]
        cell0 = partner[cell1]
        offset = targets.warped0[b, cell1] - points[cell0]
        x, y = (offset.round().long() + MIDDLE).clamp(0, BINS - 1).unbind(1)
        found.append(Truth(cell0, cell1, y * BINS + x, targets.mask1[b], targets.mask0[b]))
    return found


def pair_losses(
    network: nn.Module,
    truth: Truth,
    desc0: torch.Tensor,
    desc1: torch.Tensor,
    reliability0: torch.Tensor,
    reliability1: torch.Tensor,
) -> torch.Tensor:
    """Return (4,): a pair's losses of cells, reliabilities and places, unweighted, and the share of cells told right.

    All are zero, with a gradient, for a pair without matches.

    Args:
        network: that refines matches.
        truth: the pair's matches.
        desc0: (L, C) descriptors of image 0's cells.
        desc1: (L, C) of image 1's.
        reliability0: (L,) of image 0's cells, in [0, 1].
        reliability1: (L,) of image 1's.
    """
    if not len(truth.cell0):
        return (desc0.sum() + desc1.sum() + reliability0.sum() + reliability1.sum()) * torch.zeros(4).to(desc0)
    own0, own1 = desc0[truth.cell0], desc1[truth.cell1]
    forth, right = _told(own0, desc1, truth.cell1, truth.real1)
    back, right_back = _told(own1, desc0, truth.cell0, truth.real0)
    sure = (forth + back).detach().exp()
    told = (right & right_back).float()
    trust = reliability_loss(torch.cat([reliability0[truth.cell0], reliability1[truth.cell1]]), told.repeat(2))
    place = F.cross_entropy(places(network, own0, own1), truth.place, reduction="none")
    place = (place * sure).sum() / sure.sum().clamp(min=1e-6)  # where the cells are not found, nor is the place in them
    return torch.stack([-(forth + back).mean(), trust.mean(), place, told.mean()])


def _told(
    desc: torch.Tensor, others: torch.Tensor, partner: torch.Tensor, real: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (M,) log probabilities of the partners of (M, C) descriptors among (L, C) others, and which are highest.

    Others count where they are ``real``, (L,).
    """
    similarity = (desc @ others.mT * TEMPERATURE).masked_fill(~real, -torch.inf)
    return -F.cross_entropy(similarity, partner, reduction="none"), similarity.argmax(1) == partner
