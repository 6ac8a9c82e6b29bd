"""Planes fitted to a map in many windows at once, each pixel choosing the window that fits best."""

from __future__ import annotations

import itertools

import cv2
import numpy as np

TOLERANCE = 2.0  # a larger window is taken while its residual is below this multiple of the smaller one's
PREFERENCE = 0.7  # a window off the centre is taken where its residual is below this share of the centred one's
ROUNDING = 1e-5  # relative residual that float32 depth leaves on a perfect plane
COARSEST = 0.01  # relative; a sensor whose steps are larger gets them drawn


def fit_planes(values: np.ndarray, known: np.ndarray, radii: tuple[int, ...]) -> np.ndarray:
    """Return (H, W, 3) coefficients (a, b, c) of a x + b y + c through (H, W) ``values``, zero where there is none.

    For every radius the window may lie anywhere around the pixel (nine positions); the larger radius wins unless its
    residual says that it crosses an edge or a curve.
    """
    same = ROUNDING * values + np.minimum(quantum(values, known) / 2, COARSEST * values)
    fits: list[np.ndarray] = []
    chosen = np.full(values.shape, -1, np.int64)
    lowest = np.full(values.shape, np.inf)
    for radius in sorted(radii):
        coefficients, residual = _windows(values, known, radius)
        residual, centre = _best_position(residual, radius)
        take = np.isfinite(residual) & (residual <= TOLERANCE * lowest + same)
        np.copyto(chosen, centre + len(fits) * values.size, where=take)
        np.minimum(lowest, residual, out=lowest, where=take)
        fits.append(coefficients.reshape(-1, 3))
    best = np.concatenate(fits).take(np.maximum(chosen, 0), axis=0)
    best[~known | (chosen < 0)] = 0
    return best


def quantum(values: np.ndarray, known: np.ndarray) -> float:
    """Return the step that ``values`` seem to be rounded to, 0 where too few neighbours are equal to say so."""
    step = np.abs(np.diff(values, axis=1))[known[:, 1:] & known[:, :-1]]
    if step.size == 0 or (step == 0).mean() < 0.2 or (step == 0).all():
        return 0.0
    return float(np.percentile(step[step > 0], 10))


def _windows(values: np.ndarray, known: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (H, W, 3) plane coefficients and (H, W) residuals of the windows centred at each pixel."""
    offset = np.arange(-radius, radius + 1, dtype=np.float64)
    one = np.ones_like(offset)
    weight = known.astype(np.float64)
    held = values * weight

    def moment(data: np.ndarray, kernel_x: np.ndarray, kernel_y: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(data, cv2.CV_64F, kernel_x, kernel_y, borderType=cv2.BORDER_CONSTANT)

    n, x, y = (moment(weight, *k) for k in ((one, one), (offset, one), (one, offset)))
    xx, xy, yy = (moment(weight, *k) for k in ((offset**2, one), (offset, offset), (one, offset**2)))
    v, xv, yv = (moment(held, *k) for k in ((one, one), (offset, one), (one, offset)))
    vv = moment(held * held, one, one)
    with np.errstate(divide="ignore", invalid="ignore"):  # windows without enough pixels end as inf below
        sxx, sxy, syy = xx - x * x / n, xy - x * y / n, yy - y * y / n
        sxv, syv = xv - x * v / n, yv - y * v / n
        determinant = sxx * syy - sxy * sxy
        a = (sxv * syy - syv * sxy) / determinant
        b = (syv * sxx - sxv * sxy) / determinant
        residual = np.sqrt(np.maximum(vv - v * v / n - a * sxv - b * syv, 0) / np.maximum(n - 3, 1))
        enough = (n >= max(4, 0.5 * len(offset) ** 2)) & (determinant > 1e-9 * sxx * syy)
        ys, xs = np.ogrid[: values.shape[0], : values.shape[1]]
        c = (v - a * x - b * y) / n - a * xs - b * ys
    residual[~enough] = np.inf
    return np.stack([a, b, c], -1), residual


def _best_position(residual: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest residual of the windows shifted by up to ``radius``, and their centres as flat indices."""
    height, width = residual.shape
    centre = np.arange(height * width).reshape(height, width)
    padded = np.pad(residual, radius, constant_values=np.inf)
    lowest, chosen = residual.copy(), centre.copy()
    shifts = sorted(itertools.product((-radius, 0, radius), repeat=2), key=lambda s: abs(s[0]) + abs(s[1]))
    for dy, dx in shifts[1:]:
        shifted = padded[radius + dy : radius + dy + height, radius + dx : radius + dx + width]
        better = shifted < np.minimum(lowest, PREFERENCE * residual)
        np.copyto(lowest, shifted, where=better)
        np.copyto(chosen, centre + (dy * width + dx), where=better)
    return lowest, chosen
