"""What a radar makes of the power that comes back: speckle, decibels, eight bits."""

from __future__ import annotations

import cv2
import numpy as np
from scipy.special import gammaincinv, ndtr

REACH, STEPS = 5.5, 4096  # of the table of quantiles: standard deviations to both sides, entries


def power(decibel: np.ndarray | np.float32) -> np.ndarray:
    """Return float32 power of a level in dB; 0 dB is 1."""
    return np.exp(np.float32(np.log(10) / 10) * decibel)


def speckle(shape: tuple[int, ...], *, looks: float, width: float, rng: np.random.Generator) -> np.ndarray:
    """Return (H, W) float32 factors on intensity: gamma distributed with shape ``looks`` and mean 1.

    The sum of ``looks`` squared circular Gaussian amplitudes, over its mean, has this distribution (Goodman 1976); it
    need not be a whole number, as looks may overlap. Neighbours are correlated as by an impulse response that is a
    Gaussian of ``width`` pixels: a correlated normal field is carried through the quantiles of the gamma distribution,
    which leaves the distribution of each pixel exact.
    """
    field: np.ndarray = rng.standard_normal(shape, np.float32)
    if width > 0:
        radius = int(np.ceil(4 * width))
        kernel = cv2.getGaussianKernel(2 * radius + 1, width, cv2.CV_32F)
        kernel = kernel / np.linalg.norm(kernel)  # so that the variance stays 1
        field = cv2.sepFilter2D(field, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REFLECT_101)
    field += np.float32(REACH)
    field *= np.float32((STEPS - 1) / (2 * REACH))
    quantiles: np.ndarray = gammaincinv(looks, ndtr(np.linspace(-REACH, REACH, STEPS))) / looks
    return quantiles.astype(np.float32).take(np.rint(field).astype(np.intp), mode="clip")


def compress(received: np.ndarray, *, top: float, dynamic: float) -> np.ndarray:
    """Return (H, W) uint8 of (H, W) float32 power: 255 at ``top`` dB and above, 0 at ``dynamic`` dB below and less."""
    level = cv2.log(np.maximum(received, np.float32(1e-12)))
    level = (level * np.float32(10 / np.log(10)) - np.float32(top - dynamic)) * np.float32(255 / dynamic)
    return (np.clip(level, 0, 255) + np.float32(0.5)).astype(np.uint8)
