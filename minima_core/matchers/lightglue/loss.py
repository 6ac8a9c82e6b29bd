"""LightGlue's training loss: every layer's assignment is supervised, and so is its confidence (spec section 3.4)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch.nn import functional as F

from minima_core.matchers.lightglue.assignment import Assignment, assign
from minima_core.supervision.coarse import mean_by_pair
from minima_core.types import UNMATCHED


def assignment_nll(found: Assignment, matches0: torch.Tensor, matches1: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the (B,) losses (balanced, of matches, of unmatched) of one layer.

    Labels are (B, M) and (B, N) with UNMATCHED and IGNORE. A pair without labels of a kind has zero loss of it.
    """
    b, i = (matches0 >= 0).nonzero(as_tuple=True)
    positive = mean_by_pair(-found.at(b, i, matches0[b, i]), b, len(matches0))
    none0, none1 = matches0 == UNMATCHED, matches1 == UNMATCHED
    count = none0.sum(1).clamp(min=1) + none1.sum(1).clamp(min=1)  # each side counts one at least, as published
    negative = (
        torch.where(none0, -F.logsigmoid(-found.z0), 0.0).sum(1)
        + torch.where(none1, -F.logsigmoid(-found.z1), 0.0).sum(1)
    ) / count
    return 0.5 * positive + 0.5 * negative, positive, negative


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
