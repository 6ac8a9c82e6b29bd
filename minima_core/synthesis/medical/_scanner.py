"""What coil and receiver do to the signal: uneven sensitivity, Rician noise."""

from __future__ import annotations

import numpy as np

WIDTH = 0.8  # of a coil's sensitivity, in half diagonals of the picture: bright near the coil, fading over the whole


def sensitivity(shape: tuple[int, ...], strength: float, rng: np.random.Generator) -> np.ndarray:
    """Return (H, W) float32 in [1 - ``strength``, 1]: two surface coils at the rim, at drawn places."""
    height, width = shape
    half = np.hypot(height, width) / 2
    ys, xs = np.ogrid[:height, :width]
    total = np.zeros(shape, np.float32)
    for angle in rng.uniform(0, 2 * np.pi, 2):
        x, y = (width - 1) / 2 + half * np.cos(angle), (height - 1) / 2 + half * np.sin(angle)
        across, down = (np.exp(-0.5 * (d / (WIDTH * half)) ** 2).astype(np.float32) for d in (xs - x, ys - y))
        total += across * down
    return 1 - np.float32(strength) * (total.max() - total) / max(float(np.ptp(total)), 1e-6)


def rician(signal: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return (H, W) float32: the magnitude of a signal whose two channels each have normal noise of ``sigma``.

    Rayleigh distributed where there is no signal, nearly normal where it is strong (Gudbjartsson and Patz 1995).
    """
    real, imaginary = (np.float32(sigma) * rng.standard_normal(signal.shape, np.float32) for _ in range(2))
    return np.sqrt((signal + real) ** 2 + imaginary**2)
