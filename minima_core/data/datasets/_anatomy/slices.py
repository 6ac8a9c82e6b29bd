"""Planes through a volume, as pictures."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
from scipy import ndimage

Plane = Literal["axial", "coronal", "sagittal"]
# across and up on the picture, and the way of the plane's normal, in the volume's own axes
AXES: dict[Plane, tuple[int, int, int]] = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0)}
# where slices lie along that, as shares of the volume: what is further out is neck, air or skin
RANGE: dict[Plane, tuple[float, float]] = {"axial": (0.2, 0.85), "coronal": (0.15, 0.85), "sagittal": (0.2, 0.8)}
FILLED = 0.72  # share of the picture's height that the volume takes, so that views of it show all of it


def cut(
    gray: np.ndarray, tissues: np.ndarray, plane: Plane, size: tuple[int, int], tilt: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return a slice through (X, Y, Z) volumes: (H, W) uint8 gray, and (H, W) uint8 tissues.

    Args:
        gray: what is shown.
        tissues: ids.
        plane: about which the slice lies.
        size: W and H.
        tilt: degrees by which it may be turned about either of its axes.
        rng: draws place and tilt.
    """
    across, up, normal = AXES[plane]
    width, height = size
    voxel = max(gray.shape[across], gray.shape[up]) / (FILLED * height)  # of a pixel
    a, b = np.radians(rng.uniform(-tilt, tilt, 2))
    depth = (rng.uniform(*RANGE[plane]) - 0.5) * gray.shape[normal]
    xs, ys = np.meshgrid(np.arange(width) - (width - 1) / 2, (height - 1) / 2 - np.arange(height))
    at = np.empty((3, height, width))
    at[across], at[up] = voxel * xs * np.cos(a), voxel * ys * np.cos(b)
    at[normal] = depth + voxel * (xs * np.sin(a) + ys * np.sin(b))
    at += (np.array(gray.shape).reshape(3, 1, 1) - 1) / 2
    shown = ndimage.map_coordinates(gray, at, order=1)
    # a border between two tissues runs where both have the same share, not along voxels
    shares = np.stack(
        [ndimage.map_coordinates((tissues == k).astype(np.float32), at, order=1) for k in range(tissues.max() + 1)]
    )
    shares[0, (at < 0).any(0) | (at > np.array(gray.shape).reshape(3, 1, 1) - 1).any(0)] = 1  # air around it
    bright = float(np.percentile(gray[gray > 0], 99.5))
    return cv2.convertScaleAbs(shown, alpha=255 / bright), shares.argmax(0).astype(np.uint8)
