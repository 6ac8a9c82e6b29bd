"""Image filters that several engines share: structure tensor, flow along it, guided smoothing."""

from __future__ import annotations

import cv2
import numpy as np

WIDE = 4.0  # pixels; a Gaussian wider than this is taken on a reduced copy, where it costs next to nothing


def gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    """Return float32 ``image`` smoothed, its border repeated outwards; works on images smaller than the kernel."""
    height, width = image.shape[:2]
    reduce = int(min(sigma / (WIDE / 2), min(height, width) / 4))
    if reduce < 2:
        return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    small = cv2.resize(image, (-(-width // reduce), -(-height // reduce)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / reduce, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def tangents(image: np.ndarray, sigma: float) -> tuple[np.ndarray, np.ndarray]:
    """Return (H, W, 2) float32 unit vectors (x, y) along edges and (H, W) coherence in [0, 1].

    The structure tensor of (H, W) or (H, W, C) float32 ``image``, averaged over ``sigma`` pixels; the vector is the
    direction in which the image changes least, (1, 0) where there is no structure. Its sign means nothing.
    """
    planes = image[..., None] if image.ndim == 2 else image
    tensor = np.zeros((*image.shape[:2], 3), np.float32)
    for plane in np.moveaxis(planes, -1, 0):
        gx = cv2.Scharr(plane, cv2.CV_32F, 1, 0, scale=1 / 32, borderType=cv2.BORDER_REPLICATE)
        gy = cv2.Scharr(plane, cv2.CV_32F, 0, 1, scale=1 / 32, borderType=cv2.BORDER_REPLICATE)
        tensor += cv2.merge([gx * gx, gx * gy, gy * gy])
    exx, exy, eyy = cv2.split(gaussian(tensor, sigma))
    angle = 0.5 * np.arctan2(2 * exy, exx - eyy) + np.float32(np.pi / 2)
    energy = exx + eyy
    spread = np.sqrt((exx - eyy) ** 2 + 4 * exy**2)
    flat = energy < 1e-10
    coherence = np.where(flat, 0, spread / np.maximum(energy, 1e-10)).astype(np.float32)
    angle[flat] = 0
    return cv2.merge([np.cos(angle), np.sin(angle)]), coherence


def along(values: np.ndarray, flow: np.ndarray, sigma: float, step: float = 1.0) -> np.ndarray:
    """Return (H, W) float32 ``values`` averaged with a Gaussian along the stream lines of ``flow`` (line integral)."""
    height, width = values.shape
    xs, ys = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    field = cv2.merge([values, flow[..., 0], flow[..., 1]])
    total, weights = values.copy(), 1.0
    for sign in (1, -1):
        x: np.ndarray = xs
        y: np.ndarray = ys
        dx, dy = sign * flow[..., 0], sign * flow[..., 1]
        for k in range(1, max(1, round(2 * sigma / step)) + 1):
            x, y = x + step * dx, y + step * dy
            value, nx, ny = cv2.split(cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))
            weight = float(np.exp(-0.5 * (k * step / sigma) ** 2))
            total += weight * value
            weights += weight
            turn = np.where(nx * dx + ny * dy < 0, np.float32(-1), np.float32(1))  # a tangent has no sign
            dx, dy = nx * turn, ny * turn
    return total / np.float32(weights)


def guided(values: np.ndarray, guide: np.ndarray, radius: int, epsilon: float) -> np.ndarray:
    """Return (H, W) float32 ``values`` smoothed so that its edges follow those of (H, W) ``guide`` (He et al. 2010)."""

    def mean(image: np.ndarray) -> np.ndarray:
        return cv2.blur(image, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REPLICATE)

    mean_guide, mean_values = mean(guide), mean(values)
    slope = (mean(guide * values) - mean_guide * mean_values) / (mean(guide * guide) - mean_guide**2 + epsilon)
    return mean(slope) * guide + mean(mean_values - slope * mean_guide)
