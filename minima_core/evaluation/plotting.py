"""Pictures of matches: two images side by side and a line for each match, as pixels, without a plotting library."""

from __future__ import annotations

import cv2
import numpy as np

Colour = tuple[int, int, int]
RIGHT: Colour = (38, 166, 91)
WRONG: Colour = (214, 48, 49)
UNKNOWN: Colour = (0, 168, 225)
LIMIT = 200  # lines in one picture
GAP = 8  # white pixels between the images


def draw_matches(
    image0: np.ndarray,
    image1: np.ndarray,
    mkpts0: np.ndarray,
    mkpts1: np.ndarray,
    *,
    errors: np.ndarray | None = None,
    threshold: float = 3.0,
    height: int | None = None,
    limit: int = LIMIT,
) -> np.ndarray:
    """Return (H', W', 3) uint8 RGB: image 0, a gap, image 1, and the matches over them.

    Args:
        image0: (H, W, 3) uint8 RGB.
        image1: likewise, of any size.
        mkpts0: (N, 2) pixels of image 0.
        mkpts1: (N, 2) pixels of image 1.
        errors: (N,) pixels each match is off; green up to ``threshold``, red beyond. None draws all in blue.
        threshold: in the unit of ``errors``.
        height: both images are scaled to it; None keeps their sizes and fills the lower one up with white.
        limit: at most this many lines, evenly spaced over the matches, so that a picture stays readable.
    """
    image0, scale0 = _scaled(image0, height)
    image1, scale1 = _scaled(image1, height)
    (h0, w0), (h1, w1) = image0.shape[:2], image1.shape[:2]
    canvas = np.full((max(h0, h1), w0 + GAP + w1, 3), 255, np.uint8)
    canvas[:h0, :w0], canvas[:h1, w0 + GAP :] = image0, image1
    shift = np.array([w0 + GAP, 0])
    chosen = np.unique(np.linspace(0, len(mkpts0) - 1, min(limit, len(mkpts0))).round().astype(int))
    if errors is not None:  # the right ones last, on top
        chosen = chosen[np.argsort(np.asarray(errors)[chosen] <= threshold, kind="stable")]
    for i in chosen:
        colour = UNKNOWN if errors is None else RIGHT if errors[i] <= threshold else WRONG
        _line(canvas, _moved(mkpts0[i], scale0), _moved(mkpts1[i], scale1) + shift, colour)
    return canvas


def _scaled(image: np.ndarray, height: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Return the image at ``height`` and the factors (sx, sy) by which its pixels moved."""
    h, w = image.shape[:2]
    if height is None or height == h:
        return image, np.ones(2)
    width = max(1, round(w * height / h))
    shrink = height < h
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrink else cv2.INTER_LINEAR)
    return small, np.array([width / w, height / h])


def _moved(point: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return (np.asarray(point, np.float64) + 0.5) * scale - 0.5


def _line(canvas: np.ndarray, start: np.ndarray, end: np.ndarray, colour: Colour) -> None:
    """Draw one match with OpenCV's sub-pixel coordinates (4 fractional bits)."""
    a, b = (tuple(int(v) for v in np.round(p * 16)) for p in (start, end))
    cv2.line(canvas, a, b, colour, 1, cv2.LINE_AA, shift=4)
    for point in (a, b):
        cv2.circle(canvas, point, 2 * 16, colour, -1, cv2.LINE_AA, shift=4)
