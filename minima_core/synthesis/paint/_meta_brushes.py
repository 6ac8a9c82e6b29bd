"""The two brush marks that every stroke of the Paint Transformer is a warped copy of."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
import torch

from minima_core.io.images import read_image
from minima_core.random import rng as generator
from minima_core.weights import fetch

PUBLISHED_BRUSHES = ("brush_large_vertical.png", "brush_large_horizontal.png")
SIDE = 394  # pixels of a mark, as of the published ones
_WIDTH, _LENGTH = 0.7, 0.86  # share of the side that the paint covers, across the bristles and along them
_RAGGED = (0.006, 0.018)  # how far its edge wanders, in sides: of the flanks and of the ends


def published_brushes() -> torch.Tensor:
    """Return the published marks, as ``own_brushes`` does.

    Raises:
        WeightsError: if they cannot be had.
    """
    paths = fetch(PUBLISHED_BRUSHES)
    marks = [read_image(paths[name])[..., 0] for name in PUBLISHED_BRUSHES]  # gray, stored as RGB
    return torch.from_numpy(np.stack(marks).astype(np.float32) / 255)


@cache
def own_brushes() -> torch.Tensor:
    """Return (2, SIDE, SIDE) float32 in [0, 1]: how much paint a vertical and a horizontal mark leave; 0 is none."""
    upright = _mark(generator(0, "meta brush"))
    return torch.from_numpy(np.stack([upright, np.ascontiguousarray(upright.T)]))


def _mark(rng: np.random.Generator) -> np.ndarray:
    """Return (SIDE, SIDE) float32: bristles from top to bottom, uneven where they touch down, part and lift off."""
    noise = rng.standard_normal((SIDE, SIDE)).astype(np.float32)
    fine, broad = (cv2.GaussianBlur(noise, (0, 0), sigmaX=s, sigmaY=40) for s in (1.0, 5.0))
    paint = 0.9 + 0.03 * fine / fine.std() + 0.03 * broad / broad.std()
    at = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE - 0.5
    flanks, ends = (
        size / 2 + ragged * np.stack([_wander(rng, 12) + 0.5 * _wander(rng, 2) for _ in range(2)])
        for size, ragged in zip((_WIDTH, _LENGTH), _RAGGED, strict=True)
    )
    across = (at > -flanks[0, :, None]) & (at < flanks[1, :, None])
    along = (at[:, None] > -ends[0]) & (at[:, None] < ends[1])
    return np.where(across & along, np.clip(paint, 0.5, 1), 0).astype(np.float32)


def _wander(rng: np.random.Generator, sigma: float) -> np.ndarray:
    """Return (SIDE,) smooth noise of unit variance."""
    noise = cv2.GaussianBlur(rng.standard_normal((1, SIDE)), (0, 0), sigmaX=sigma)[0]
    return noise / noise.std()
