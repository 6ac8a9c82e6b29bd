"""Planes fitted to a map in many windows at once, each pixel choosing the window that fits best."""

from __future__ import annotations

import itertools

import cv2
import numpy as np

TOLERANCE = 2.0  # a larger window is taken while its residual is below this multiple of the smaller one's
PREFERENCE = 0.7  # a window off the centre is taken where its residual is below this share of the centred one's
ROUNDING = 1e-5  # relative residual that float32 depth leaves on a perfect plane
NO_FRACTION = np.empty(0, np.uint16)  # of the pixel that a centre is
STRIP = 32  # rows that are computed together: their sums stay in the processor's cache
COARSEST = 0.01  # relative; a sensor whose steps are larger gets them drawn


def fit_planes(values: np.ndarray, known: np.ndarray, radii: tuple[int, ...]) -> np.ndarray:
    """Return (H, W, 3) float32 coefficients (a, b, c) of a x + b y + c through (H, W) ``values``, zero where none is.

    For every radius the window may lie anywhere around the pixel (nine positions); the larger radius wins unless its
    residual says that it crosses an edge or a curve.
    """
    narrow = values.astype(np.float32)
    same = ROUNDING * narrow + np.minimum(quantum(values, known) / 2, COARSEST * narrow)
    best = np.zeros((*values.shape, 3), np.float32)
    lowest = np.full(values.shape, np.inf, np.float32)
    for radius in sorted(radii):
        coefficients, residual = _windows(values, known, radius)
        residual, centre = _best_position(residual, radius)
        take = np.isfinite(residual) & (residual <= TOLERANCE * lowest + same) & known
        lowest = np.where(take, np.minimum(lowest, residual), lowest)
        cv2.copyTo(cv2.remap(coefficients, centre, NO_FRACTION, cv2.INTER_NEAREST), take.view(np.uint8), best)
    return best


def quantum(values: np.ndarray, known: np.ndarray) -> float:
    """Return the step that ``values`` seem to be rounded to, 0 where too few neighbours are equal to say so."""
    step = np.abs(np.diff(values, axis=1))[known[:, 1:] & known[:, :-1]]
    if step.size == 0 or (step == 0).mean() < 0.2 or (step == 0).all():
        return 0.0
    return float(np.percentile(step[step > 0], 10))


def _windows(values: np.ndarray, known: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (H, W, 3) plane coefficients and (H, W) residuals, float32, of the windows centred at each pixel."""
    coefficients = np.empty((*values.shape, 3), np.float32)
    residual = np.empty(values.shape, np.float32)
    least = max(4, 0.5 * (2 * radius + 1) ** 2)
    for start in range(0, len(values), STRIP):
        rows = slice(start, start + STRIP)
        coefficients[rows], residual[rows] = _planes(_sums(values, known, radius, rows), least, start)
    return coefficients, residual


def _sums(values: np.ndarray, known: np.ndarray, radius: int, rows: slice) -> list[np.ndarray]:
    """Return sums over the known pixels of the windows of some rows: 1, x, y, xx, xy, yy, v, xv, yv and vv.

    x and y count from a window's centre. Where nothing is unknown, the six without v are one row that holds for all.
    """
    top, end = rows.start - radius, rows.stop + radius
    whole = top >= 0 and end <= len(values) and bool(known[top:end].all())
    values, known = values[max(top, 0) : end], known[max(top, 0) : end]
    rows = slice(rows.start - max(top, 0), rows.stop - max(top, 0))
    side = 2 * radius + 1
    offset = np.arange(-radius, radius + 1, dtype=np.float32)
    one, square = np.ones_like(offset), offset**2
    weight = known.astype(np.float32)
    held = values * weight  # float64
    narrow = held.astype(np.float32)

    def total(data: np.ndarray) -> np.ndarray:
        return cv2.boxFilter(data, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)

    def moment(data: np.ndarray, kernel_x: np.ndarray, kernel_y: np.ndarray) -> np.ndarray:
        return cv2.sepFilter2D(data, -1, kernel_x, kernel_y, borderType=cv2.BORDER_CONSTANT)

    if whole:
        weight, of_shape = weight[:side], slice(radius, radius + 1)
    else:
        of_shape = rows
    moments = ((offset, one), (one, offset), (square, one), (offset, offset), (one, square))
    shape = [total(weight), *(moment(weight, *kernels) for kernels in moments)]
    value = [total(held), *(moment(narrow, *kernels) for kernels in moments[:2]), total(held * held)]
    return [part[of_shape] for part in shape] + [part[rows] for part in value]


def _planes(sums: list[np.ndarray], least: float, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Return coefficients and residuals of the windows of some rows, the first of which is ``top``.

    ``sums`` are those of ``_sums``; a window of fewer pixels than ``least`` has no plane.
    """
    n, x, y, xx, xy, yy, exact, xv, yv, vv = sums
    with np.errstate(divide="ignore", invalid="ignore"):  # windows without enough pixels end as inf below
        share = 1 / n
        spread = (vv - exact * exact * share).astype(np.float32)  # a small difference of large numbers: of float64
        mean_x, mean_y, mean_v = x * share, y * share, exact.astype(np.float32) * share
        sxx, sxy, syy = xx - x * mean_x, xy - x * mean_y, yy - y * mean_y
        sxv, syv = xv - x * mean_v, yv - y * mean_v
        part = 1 / (sxx * syy - sxy * sxy)  # of a positive number: half a window never lies on one line
        a = (sxv * syy - syv * sxy) * part
        b = (syv * sxx - sxv * sxy) * part
        residual = np.sqrt(np.maximum(spread - a * sxv - b * syv, 0) / np.maximum(n - 3, 1))
        ys, xs = np.ogrid[np.float32(top) : top + vv.shape[0], np.float32(0) : vv.shape[1]]
        c = mean_v - a * (mean_x + xs) - b * (mean_y + ys)
    np.copyto(residual, np.inf, where=n < least)
    return cv2.merge([a, b, c]), residual


def _best_position(residual: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest residual of the windows shifted by up to ``radius``, and (H, W, 2) int16 x, y of its centre."""
    height, width = residual.shape
    padded = np.pad(residual, radius, constant_values=np.inf)
    shifts = sorted(itertools.product((-radius, 0, radius), repeat=2), key=lambda s: abs(s[0]) + abs(s[1]))
    bar = np.float32(PREFERENCE) * residual
    chosen = np.zeros(residual.shape, np.uint8)  # which of the shifts
    for k, (dy, dx) in enumerate(shifts[1:], 1):
        shifted = padded[radius + dy : radius + dy + height, radius + dx : radius + dx + width]
        np.maximum(chosen, (shifted < bar) * np.uint8(k), out=chosen)
        np.minimum(bar, shifted, out=bar)
    step_y, step_x = (np.array(step, np.int16).take(chosen) for step in zip(*shifts, strict=True))
    ys, xs = np.ogrid[:height, :width]
    centre = cv2.merge([step_x + xs.astype(np.int16), step_y + ys.astype(np.int16)])
    return np.where(chosen > 0, bar, residual), centre
