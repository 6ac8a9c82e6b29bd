"""From a dense warp to a number of matches: sure ones first, then spread over both images."""

from __future__ import annotations

import torch

from minima_core.random import rng

SEED = 0
CANDIDATES = 4  # times the matches that are asked for
WIDTH = 0.1  # standard deviation of the density's kernel, in units of [-1, 1]
LEAST_DENSITY = 10.0  # a match with fewer neighbours is most likely an outlier
UNLIKELY = 1e-7
ROWS = 1024  # of the density's table at once


def balanced_sample(warp: torch.Tensor, certainty: torch.Tensor, number: int, threshold: float) -> torch.Tensor:
    """Return the indices of at most ``number`` matches, a function of the arguments alone (the paper's section 3.5).

    Candidates are drawn by their certainty, where all above ``threshold`` count as sure; of these, matches are drawn
    by the inverse of how many others are near. What has no certainty is never drawn.

    Args:
        warp: (N, 4) places in image 0 and image 1, in [-1, 1].
        certainty: (N,) in [0, 1].
        number: of matches.
        threshold: above which a match is sure.
    """
    chance = torch.where(certainty > threshold, 1.0, certainty.double())
    candidates = draw(chance, CANDIDATES * number, "candidates")
    near = density(warp[candidates])
    chance = torch.where(near < LEAST_DENSITY, UNLIKELY, 1 / (near + 1))
    return candidates[draw(chance.double(), number, "matches")]


def density(points: torch.Tensor) -> torch.Tensor:
    """Return (N,) how many of (N, D) points lie near each, itself included; the further the less they count."""
    rows = [(-torch.cdist(some, points).square() / (2 * WIDTH**2)).exp().sum(1) for some in torch.split(points, ROWS)]
    return torch.cat(rows) if rows else points.new_zeros(0)


def draw(chance: torch.Tensor, number: int, what_for: str) -> torch.Tensor:
    """Return at most ``number`` different indices, drawn by their (N,) unnormalised chances; none whose chance is 0.

    The smallest of exponential variables with rates ``chance`` are such a draw; so the result is the same everywhere.
    """
    waiting = torch.from_numpy(rng(SEED, "roma", what_for).standard_exponential(len(chance))).to(chance.device)
    return (waiting / chance).topk(min(number, int((chance > 0).sum())), largest=False).indices
