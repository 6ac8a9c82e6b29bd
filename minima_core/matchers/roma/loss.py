"""RoMa's loss: which anchor, how far off the warp, how sure (spec/training.md section 5.4; the paper's section 3.4)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import torch
from torch.nn import functional as F

from minima_core.matchers.roma.network import Estimate
from minima_core.supervision.dense import DenseTargets

CERTAINTY_WEIGHT = 0.01
SCALE = 1e-4  # of the robust error, times the stride
POWER = 0.5
NEAR = {8: 8, 4: 8, 2: 4, 1: 4}  # strides that the last estimate may be off, for a refiner to learn from it
UNIT = 2 / 512  # one pixel of an image of 512


def dense_loss(
    estimates: Mapping[int, Estimate], targets: Callable[[tuple[int, int]], DenseTargets]
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """Return the loss (scalar) over all strides, and its parts ``coarse``, ``regression`` and ``certainty``.

    Args:
        estimates: stride -> estimate, coarse to fine.
        targets: returns the labels of a grid of (w, h) cells.
    """
    zero = next(iter(estimates.values())).certainty.sum() * 0.0  # keeps a gradient where nothing is known
    parts = {"coarse": zero, "regression": zero, "certainty": zero}
    error = None
    for stride, estimate in estimates.items():
        h, w = estimate.flow.shape[-2:]
        truth = targets((w, h))
        certain = truth.certainty
        if error is not None:
            before = F.interpolate(error[:, None], (h, w), mode="nearest-exact")[:, 0]
            certain = certain * (before < UNIT * NEAR[stride] * stride)
        if estimate.choice is not None and estimate.choice_certainty is not None:
            parts["coarse"] = parts["coarse"] + anchor_loss(estimate.choice, truth.warp_0to1, certain)
            parts["certainty"] = parts["certainty"] + certainty_loss(estimate.choice_certainty, certain)
        distance = distances(estimate.flow, truth.warp_0to1)
        parts["regression"] = parts["regression"] + mean_where(robust(distance, stride), certain)
        parts["certainty"] = parts["certainty"] + certainty_loss(estimate.certainty, certain)
        error = distance.detach()
    return parts["coarse"] + parts["regression"] + CERTAINTY_WEIGHT * parts["certainty"], parts


def anchor_loss(choice: torch.Tensor, warp: torch.Tensor, certain: torch.Tensor) -> torch.Tensor:
    """Return the mean cross entropy of (B, A², h, w) logits with the anchors nearest to (B, h, w, 2) places."""
    side = math.isqrt(choice.shape[1])
    column, row = (((warp + 1) / 2 * side).floor().long().clamp(0, side - 1)).unbind(-1)
    return mean_where(F.cross_entropy(choice, row * side + column, reduction="none"), certain)


def certainty_loss(logit: torch.Tensor, certain: torch.Tensor) -> torch.Tensor:
    """Return the mean binary cross entropy of (B, 1, h, w) logits with (B, h, w)."""
    return F.binary_cross_entropy_with_logits(logit[:, 0], certain)


def distances(flow: torch.Tensor, warp: torch.Tensor) -> torch.Tensor:
    """Return (B, h, w): how far (B, 2, h, w) places are from (B, h, w, 2)."""
    off = flow.permute(0, 2, 3, 1) - warp
    # a norm has no gradient at zero
    return off.square().sum(-1).clamp(min=1e-20).sqrt()


def robust(distance: torch.Tensor, stride: int) -> torch.Tensor:
    """Return the error of a distance in [-1, 1] units: square near zero, then its root."""
    scale = SCALE * stride
    return scale**POWER * ((distance / scale) ** 2 + 1) ** (POWER / 2)


def mean_where(values: torch.Tensor, certain: torch.Tensor) -> torch.Tensor:
    """Return the mean of (B, h, w) values where ``certain``, zero where nothing is."""
    return (values * certain).sum() / certain.sum().clamp(min=1)
