"""The pseudo-colour that depth is drawn in: Spectral of ColorBrewer, reversed, as matplotlib samples it."""

from __future__ import annotations

import cv2
import numpy as np

# ColorBrewer 2.0 (Apache-2.0), Spectral with 11 classes, far to near. 256 entries interpolated on the 0-255 scale and
# truncated are matplotlib's Spectral_r exactly; so no worker needs to import matplotlib.
_ANCHORS = (
    (94, 79, 162),
    (50, 136, 189),
    (102, 194, 165),
    (171, 221, 164),
    (230, 245, 152),
    (255, 255, 191),
    (254, 224, 139),
    (253, 174, 97),
    (244, 109, 67),
    (213, 62, 79),
    (158, 1, 66),
)


def spectral_r() -> np.ndarray:
    """Return the (256, 3) uint8 RGB table; 0 is far (violet), 255 near (red)."""
    anchors = np.array(_ANCHORS, np.float64)
    position = np.linspace(0, 255, len(anchors))
    return np.stack([np.interp(np.arange(256), position, channel) for channel in anchors.T], 1).astype(np.uint8)


def index(nearness: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return (H, W) uint8: float32 ``nearness`` stretched over its known range, truncated; 0 where it is constant."""
    values = nearness[known]
    stretched = np.zeros(nearness.shape, np.uint8)
    if values.size and values.max() > values.min():
        low = values.min()
        stretched[known] = ((values - low) / (values.max() - low) * np.float32(255)).astype(np.uint8)
    return stretched


def colour(nearness: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB of (H, W) float32 ``nearness``; what is not ``known`` stays black."""
    picture = cv2.LUT(cv2.merge([index(nearness, known)] * 3), spectral_r()[None])
    return cv2.copyTo(picture, known.view(np.uint8))
