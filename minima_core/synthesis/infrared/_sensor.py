"""The thermal camera itself: lens, noise and automatic gain."""

from __future__ import annotations

import numpy as np

from minima_core.synthesis._filters import gaussian

TAILS = (0.5, 99.5)  # percentiles that the gain control maps to black and white
SAMPLED = 320  # rows and columns, about, that the percentiles are taken over
FINE = 4095  # levels that the gain is worked out for, sixteen for one of the picture
PLATEAU = 4.0  # a histogram bin counts at most this many times the mean: large flat areas do not eat all the levels


def expose(kelvin: np.ndarray, *, blur: float, noise: float, equalise: float, rng: np.random.Generator) -> np.ndarray:
    """Return (H, W) uint8, white hot, of (H, W) float32 temperatures.

    ``blur`` in pixels, ``noise`` in kelvin (each pixel, and a third of it along whole columns, as line sensors leave
    it), ``equalise`` the share of plateau histogram equalisation in the gain.
    """
    height, width = kelvin.shape
    seen = gaussian(kelvin, blur)
    seen = seen + noise * rng.standard_normal((height, width), np.float32)
    seen += noise / 3 * rng.standard_normal((1, width), np.float32)
    low, high = np.percentile(seen[:: 1 + height // SAMPLED, :: 1 + width // SAMPLED], TAILS)
    span = max(float(high - low), 0.5)  # a scene of one temperature is not blown up to noise
    level = np.clip(seen * np.float32(1 / span) + np.float32(0.5 - (low + high) / 2 / span), 0, 1)
    fine = (level * np.float32(FINE) + np.float32(0.5)).astype(np.uint16)
    counts = np.bincount((level * 255).astype(np.uint8).ravel(), minlength=256).astype(np.float64)
    counts = np.minimum(counts, PLATEAU * counts.mean())
    rank = (np.cumsum(counts) - counts / 2) / counts.sum()
    levels = np.arange(FINE + 1) / FINE
    mixed = (1 - equalise) * levels + equalise * np.interp(levels * 255, np.arange(256), rank)
    return (np.clip(mixed, 0, 1) * 255 + 0.5).astype(np.uint8).take(fine)
