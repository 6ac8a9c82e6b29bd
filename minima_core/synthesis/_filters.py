"""Image filters that several engines share: structure tensor, flow along it, guided smoothing."""

from __future__ import annotations

import cv2
import numpy as np

NARROW = 0.1  # pixels; a Gaussian narrower than this leaves an image as it is
WIDE = 4.0  # pixels; a Gaussian wider than this is taken on a reduced copy, where it costs next to nothing


def gaussian(image: np.ndarray, sigma: float) -> np.ndarray:
    """Return float32 ``image`` smoothed, its border repeated outwards; works on images smaller than the kernel."""
    height, width = image.shape[:2]
    if sigma < NARROW:
        return image
    sigma = min(sigma, 4.0 * max(height, width))  # more changes nothing but the size of the kernel
    reduce = int(min(sigma / (WIDE / 2), min(height, width) / 4))
    if reduce < 2:
        return cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
    small = cv2.resize(image, (-(-width // reduce), -(-height // reduce)), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(small, (0, 0), sigma / reduce, borderType=cv2.BORDER_REPLICATE)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)


def tangents(image: np.ndarray, sigma: float, reduce: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Return (h, w, 2) float32 unit vectors (x, y) along edges and (h, w) coherence in [0, 1].

    The structure tensor of (H, W) or (H, W, C) float32 ``image``, averaged over ``sigma`` pixels; the vector is the
    direction in which the image changes least, (1, 0) where there is no structure. Its sign means nothing. h and w are
    H and W over ``reduce``, rounded up: the directions change slowly where ``sigma`` is wide.
    """
    height, width = image.shape[:2]
    gx, gy = (
        cv2.Scharr(image, cv2.CV_32F, *order, scale=1 / 32, borderType=cv2.BORDER_REPLICATE)
        for order in ((1, 0), (0, 1))
    )

    def averaged(product: np.ndarray) -> np.ndarray:
        if product.ndim == 3:
            product = cv2.transform(product, np.ones((1, product.shape[2]), np.float32))
        if reduce > 1:
            product = cv2.resize(product, (-(-width // reduce), -(-height // reduce)), interpolation=cv2.INTER_AREA)
        return gaussian(product, sigma / reduce)

    exx, exy, eyy = averaged(gx * gx), averaged(gx * gy), averaged(gy * gy)
    angle = 0.5 * np.arctan2(2 * exy, exx - eyy) + np.float32(np.pi / 2)
    energy = exx + eyy
    spread = np.sqrt((exx - eyy) ** 2 + 4 * exy**2)
    flat = energy < 1e-10
    coherence = np.where(flat, 0, spread / np.maximum(energy, 1e-10)).astype(np.float32)
    angle[flat] = 0
    return cv2.merge([np.cos(angle), np.sin(angle)]), coherence


def along(values: np.ndarray, flow: np.ndarray, sigma: float, step: float = 1.0) -> np.ndarray:
    """Return (H, W) float32 ``values`` averaged with a Gaussian along the stream lines of ``flow`` (line integral).

    ``flow`` may be of fewer pixels than ``values``: a stream line is followed from each of its pixels, and the pixels
    of ``values`` that this one stands for are averaged along shifted copies of the line. ``sigma`` and ``step`` are in
    pixels of ``values``.
    """
    height, width = values.shape
    per_x, per_y = np.float32(flow.shape[1] / width), np.float32(flow.shape[0] / height)
    flow_x, flow_y = cv2.split(flow)
    total: np.ndarray = values.copy()
    weights = 1.0
    for sign in (1, -1):
        dx, dy = np.float32(sign * step) * flow_x, np.float32(sign * step) * flow_y
        away_x, away_y = dx, dy
        for k in range(1, max(1, round(2 * sigma / step)) + 1):
            if k > 1:
                nx, ny = cv2.split(_displaced(flow, per_x * away_x, per_y * away_y))
                turn = np.copysign(np.float32(step), nx * dx + ny * dy)  # a tangent has no sign
                dx, dy = nx * turn, ny * turn
                away_x, away_y = away_x + dx, away_y + dy
            x, y = (cv2.resize(away, (width, height), interpolation=cv2.INTER_NEAREST) for away in (away_x, away_y))
            weight = float(np.exp(-0.5 * (k * step / sigma) ** 2))
            total = cv2.scaleAdd(_displaced(values, x, y), weight, total)
            weights += weight
    return total / np.float32(weights)


def _displaced(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return ``image`` as seen (x, y) pixels away from each of its pixels."""
    how = cv2.INTER_LINEAR | cv2.WARP_RELATIVE_MAP
    return cv2.remap(image, x, y, how, borderMode=cv2.BORDER_REPLICATE)


def guided(values: np.ndarray, guide: np.ndarray, radius: int, epsilon: float) -> np.ndarray:
    """Return (H, W) float32 ``values`` smoothed so that its edges follow those of (H, W) ``guide`` (He et al. 2010)."""

    def mean(image: np.ndarray) -> np.ndarray:
        return cv2.blur(image, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REPLICATE)

    mean_guide, mean_values = mean(guide), mean(values)
    slope = (mean(guide * values) - mean_guide * mean_values) / (mean(guide * guide) - mean_guide**2 + epsilon)
    return mean(slope) * guide + mean(mean_values - slope * mean_guide)
