"""XFeat's network, with kornia's layers, as its semi-dense mode uses it."""

from __future__ import annotations

from typing import Any

import torch
from kornia.feature import XFeat
from torch import nn
from torch.nn import functional as F

from minima_core.matchers._semidense import normalised

BINS = 8  # along either side of the square of places that a match is refined to, a pixel apart
# The place that is the cell's own point. The authors' code takes 4; their weights, on photographs moved by known
# homographies, say 3: benchmarks/places.py.
MIDDLE = 3
SHARPNESS = 3.0  # of the probabilities that places are averaged by, the authors'


def build() -> nn.Module:
    """Return the network with random weights.

    It is given images that ``normalised`` made: its own norm would count an image's padding too.
    """
    network: Any = XFeat().net  # its parts have no types
    network.norm = nn.Identity()  # has no weights: official files fit as before
    network.keypoint_head.requires_grad_(False)  # semi-dense matches need no keypoints
    built: nn.Module = network
    return built


def describe(network: nn.Module, images: torch.Tensor, masks: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the (B, L, 64) descriptors, not of unit length, and (B, L) reliabilities of the cells, row by row."""
    dense, _, reliability = network(normalised(images, masks))
    return dense.float().flatten(2).mT, reliability.float().flatten(1)


def places(network: Any, desc0: torch.Tensor, desc1: torch.Tensor) -> torch.Tensor:
    """Return (M, 64) logits of where in image 0 the point of image 1's cell lies, for M matched cells, row by row."""
    logits: torch.Tensor = network.fine_matcher(torch.cat([desc0, desc1], 1))
    return logits.float()


def mean_place(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (M, 2) pixels from the cell's point to the mean of the places, and the (M,) largest probability."""
    probability = F.softmax(SHARPNESS * logits, 1)
    square = probability.reshape(-1, BINS, BINS)
    step = torch.arange(BINS, device=logits.device, dtype=torch.float32) - MIDDLE
    offset = torch.stack([(square.sum(1) * step).sum(1), (square.sum(2) * step).sum(1)], 1)
    return offset, probability.amax(1)
