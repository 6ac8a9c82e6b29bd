"""What a layer of LightGlue says of two images' keypoints: which of them match, and which have no partner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional as F


@dataclass(frozen=True)
class Assignment:
    """A layer's log assignment, kept in parts: P_ij = 2 sim_ij - row_i - col_j + log s(z0_i) + log s(z1_j).

    The full (M+1) x (N+1) matrix is never needed: in the loss, positives read single entries and the dustbins depend
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

    def mutual(self, threshold: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return (K,) pair of the batch, keypoint of image 0, of image 1 and probability of the matches.

        They are each other's most probable partners, more probable than ``threshold``.
        """
        matchable = F.logsigmoid(self.z0)[:, :, None] + F.logsigmoid(self.z1)[:, None]
        log_assignment = 2 * self.sim - self.row[:, :, None] - self.col[:, None] + matchable
        best, partner = log_assignment.max(2)
        back = log_assignment.argmax(1).gather(1, partner) == torch.arange(partner.shape[1], device=partner.device)
        b, i = torch.where(back & (best.exp() > threshold))
        return b, i, partner[b, i], best[b, i].exp()

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
