"""LightGlue's training loss: every layer's assignment is supervised, and so is its confidence (spec section 3.4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F

from minima_core.types import UNMATCHED


@dataclass(frozen=True)
class Assignment:
    """A layer's log assignment, kept in parts: P_ij = 2 sim_ij - row_i - col_j + log s(z0_i) + log s(z1_j).

    The full (M+1) x (N+1) matrix is never needed for the loss: positives read single entries and the dustbins depend
    on the matchability alone.

    Attributes:
        sim: (B, M, N) similarities; -1e4 in padded rows and columns.
        row: (B, M) log of the row sums of exp(sim).
        col: (B, N) likewise of the columns.
        z0: (B, M) matchability logits.
        z1: (B, N) matchability logits.
    """

    sim: torch.Tensor
    row: torch.Tensor
    col: torch.Tensor
    z0: torch.Tensor
    z1: torch.Tensor

    def at(self, b: torch.Tensor, i: torch.Tensor, j: torch.Tensor) -> torch.Tensor:
        """Return (K,) log probabilities that keypoints i of image 0 match keypoints j of image 1."""
        matchable = F.logsigmoid(self.z0[b, i]) + F.logsigmoid(self.z1[b, j])
        return 2 * self.sim[b, i, j] - self.row[b, i] - self.col[b, j] + matchable

    def decide(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (B, M) and (B, N) most probable partners of each keypoint; N and M stand for "none"."""
        with torch.no_grad():
            matchable0, matchable1 = F.logsigmoid(self.z0), F.logsigmoid(self.z1)
            core = 2 * self.sim
            best0 = (core + (matchable1 - self.col)[:, None, :]).max(2)
            best1 = (core + (matchable0 - self.row)[:, :, None]).max(1)
            none0 = F.logsigmoid(-self.z0) >= best0.values - self.row + matchable0
            none1 = F.logsigmoid(-self.z1) >= best1.values - self.col + matchable1
            return (
                best0.indices.masked_fill(none0, self.sim.shape[2]),
                best1.indices.masked_fill(none1, self.sim.shape[1]),
            )


def assign(head: Any, desc0: torch.Tensor, desc1: torch.Tensor, mask0: torch.Tensor, mask1: torch.Tensor) -> Assignment:
    """Run one of LightGlue's assignment heads on (B, M, D) and (B, N, D) states; masks are False where padded."""
    scale = desc0.shape[-1] ** 0.25
    sim = ((head.final_proj(desc0) / scale) @ (head.final_proj(desc1) / scale).mT).float()  # sums of exp follow
    if not bool(mask0.all() and mask1.all()):
        # finite, because a row that is padding altogether would have a log sum of -inf and a gradient of NaN
        sim = sim.masked_fill(~(mask0[:, :, None] & mask1[:, None, :]), -1e4)
    row, col = sim.logsumexp(2), sim.logsumexp(1)
    z0, z1 = (head.matchability(desc)[..., 0].float() for desc in (desc0, desc1))
    return Assignment(sim, row, col, z0, z1)


def assignment_nll(found: Assignment, matches0: torch.Tensor, matches1: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the (B,) losses (balanced, of matches, of unmatched) of one layer.

    Labels are (B, M) and (B, N) with UNMATCHED and IGNORE. A pair without labels of a kind has zero loss of it.
    """
    b, i = (matches0 >= 0).nonzero(as_tuple=True)
    pairs = len(matches0)
    positive = _mean_per_pair(-found.at(b, i, matches0[b, i]), b, pairs)
    none0, none1 = matches0 == UNMATCHED, matches1 == UNMATCHED
    count = none0.sum(1).clamp(min=1) + none1.sum(1).clamp(min=1)  # each side counts one at least, as published
    negative = (
        torch.where(none0, -F.logsigmoid(-found.z0), 0.0).sum(1)
        + torch.where(none1, -F.logsigmoid(-found.z1), 0.0).sum(1)
    ) / count
    return 0.5 * positive + 0.5 * negative, positive, negative


def _mean_per_pair(values: torch.Tensor, b: torch.Tensor, pairs: int) -> torch.Tensor:
    """Return (B,) means of (K,) values that belong to pairs ``b``; 0 where a pair has none."""
    total = torch.zeros(pairs, dtype=values.dtype, device=values.device).index_add(0, b, values)
    return total / torch.bincount(b, minlength=pairs).clamp(min=1)


def confidence_loss(
    logits: tuple[torch.Tensor, torch.Tensor],
    now: tuple[torch.Tensor, torch.Tensor],
    final: tuple[torch.Tensor, torch.Tensor],
    masks: tuple[torch.Tensor, torch.Tensor],
) -> torch.Tensor:
    """Return the (B,) loss of a layer's token confidences: do they know whether its decision is the final one?"""
    sides = []
    for logit, decision, last, mask in zip(logits, now, final, masks, strict=True):
        each = F.binary_cross_entropy_with_logits(logit, (decision == last).to(logit.dtype), reduction="none")
        sides.append(torch.where(mask, each, 0.0).sum(1) / mask.sum(1).clamp(min=1))
    return (sides[0] + sides[1]) / 2


def deep_loss(
    net: Any,
    states: Iterable[tuple[torch.Tensor, torch.Tensor]],
    masks: tuple[torch.Tensor, torch.Tensor],
    matches0: torch.Tensor,
    matches1: torch.Tensor,
) -> tuple[torch.Tensor, dict[str, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
    """Return the (B,) total loss, its (B,) parts at the last layer, and the final decisions.

    The total is the plain mean of all layers' assignment losses (gamma 1) plus the mean confidence loss of all layers
    but the last.
    """
    losses, decisions, logits = [], [], []
    parts: dict[str, torch.Tensor] = {}
    for i, (desc0, desc1) in enumerate(states):
        found = assign(net.log_assignment[i], desc0, desc1, *masks)
        nll, positive, negative = assignment_nll(found, matches0, matches1)
        losses.append(nll)
        decisions.append(found.decide())
        parts = {"nll": nll, "positive": positive, "negative": negative}
        if i < len(net.token_confidence):
            head = net.token_confidence[i].token[0]
            logits.append((head(desc0.detach())[..., 0], head(desc1.detach())[..., 0]))
    final = decisions[-1]
    confidence = [confidence_loss(logit, now, final, masks) for logit, now in zip(logits, decisions, strict=False)]
    parts["confidence"] = torch.stack(confidence).mean(0)
    return torch.stack(losses).mean(0) + parts["confidence"], parts, final
