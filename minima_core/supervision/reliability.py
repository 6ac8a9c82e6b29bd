"""The loss of an extractor's own word on which of its points are told from the others."""

from __future__ import annotations

import torch
from torch.nn import functional as F

CLEAR = 1e-4  # reliabilities are kept this far from 0 and 1


def reliability_loss(reliability: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
    """Return (...): how far reliabilities (...) are from saying which points were ``told`` from the others (0 or 1).

    NaN stays NaN, which a training counts; torch's own cross-entropy is an error there, and on a GPU the last.
    """
    kept = reliability.clamp(CLEAR, 1 - CLEAR)
    each = F.binary_cross_entropy(kept.nan_to_num(), told, reduction="none")
    return each.masked_fill(kept.isnan(), torch.nan)
