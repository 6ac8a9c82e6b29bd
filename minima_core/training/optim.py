"""The optimiser and how its learning rate runs."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn


def adam(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Adam:
    """Return Adam without weight decay, as glue-factory trains LightGlue."""
    return torch.optim.Adam(parameters, lr=lr, foreach=False)  # one order of operations, whatever the version prefers


def scaled_lr(lr_at_32: float, batch: int) -> float:
    """Return the learning rate of a batch from that of the paper's batch of 32 (spec/training.md section 3.5)."""
    return lr_at_32 * batch / 32


def lr_factor(step: int, *, steps: int, warmup: int, decay_from: float, decay_to: float) -> float:
    """Return what the learning rate is multiplied by at ``step`` (from 0).

    Linear warm-up over ``warmup`` steps, constant, then from the share ``decay_from`` of all steps exponential down
    to ``decay_to`` at the end.
    """
    if step < warmup:
        return (step + 1) / (warmup + 1)
    start = decay_from * steps
    if step < start:
        return 1.0
    return math.exp(math.log(decay_to) * (step - start) / max(steps - start, 1.0))
