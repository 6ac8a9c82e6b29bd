"""Whether two images show the same structure at the same place, whatever their colours are.

Each image becomes a field of edge orientations in double-angle form, ``(gx + i gy)^2`` summed over the channels. A dark
edge on bright and a bright one on dark give the same value, so the field survives inverted contrast, false colours and
thermal remapping. Two fields of one scene correlate in a sharp peak at zero shift; a picture of something else, rotated
or shifted has no peak there. The height of that peak over its surroundings is the score: unlike the correlation itself
it means the same for a paint rendition (which keeps every edge) and a depth map (which keeps few).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import scipy.fft

SIDE = 320  # longer side of a field: cheap, and blind to pixel-level noise
NEAR = 2  # field pixels around zero shift where the peak may lie
FAR = 0.0375  # beyond this radius, as a share of the longer side, lie the surroundings that the peak is compared with
WINDOW = 0.1875  # largest shift looked at, as a share of the longer side
FLAT = 1e-4  # mean field strength below which an image has no structure to compare


@dataclass(frozen=True)
class Field:
    """The edge orientations of one image, ready to be correlated.

    Attributes:
        spectrum: 2-D Fourier transform of the zero-padded field.
        energy: norm of the field; 0 where the image is flat.
        scale: pixels of the image per pixel of the field.
        side: longer side of the field that was asked for.
    """

    spectrum: np.ndarray
    energy: float
    scale: float
    side: int


@dataclass(frozen=True)
class Agreement:
    """How well two fields agree.

    Attributes:
        score: peak near zero shift over its surroundings, in standard deviations of the latter.
        offset: where the highest peak of all lies, in pixels of the first image from zero shift.
    """

    score: float
    offset: float


def image_field(image: np.ndarray, side: int = SIDE) -> Field:
    """Return the field of an (H, W, 3) or (H, W) uint8 image, computed at this longer side."""
    return _field(image, 255.0, side, image.shape)


def depth_fields(depth: np.ndarray, side: int = SIDE) -> list[Field]:
    """Return two fields of an (H, W) depth map, 0 where unknown: of its steps, and of its steps and creases.

    The first is that of the inverse depth, which a depth rendition follows; the second has its two slopes beside it, so
    that creases between surfaces count as edges, which a normal map shows and a depth rendition hardly does.
    """
    shape = depth.shape
    step = max(1, max(shape) // side)  # no finer than the field
    depth = depth[::step, ::step]
    known = depth > 0
    if not known.any():
        return []
    inverse = 1 / np.where(known, depth, np.float32(1)).astype(np.float32)
    low, high = (np.float32(end) for end in np.percentile(inverse[known], [1, 99]))
    inverse = np.where(known, np.clip((inverse - low) / max(high - low, np.float32(1e-9)), 0, 1), np.float32(0))
    smooth = cv2.GaussianBlur(inverse, (0, 0), max(2 / step, 0.5))
    down, right = np.gradient(smooth)
    typical = np.float32(3.0 * float(np.median(np.abs(down) + np.abs(right))) + 1e-6)
    creased = cv2.merge([inverse, *(np.tanh(slope / typical) / 2 + np.float32(0.5) for slope in (down, right))])
    return [_field(inverse, 1.0, side, shape), _field(creased, 1.0, side, shape)]


def agreement(source: Field, other: Field) -> Agreement | None:
    """Return how ``other`` agrees with ``source``; None where one of them is flat, so that nothing can be said.

    Both must come from images of one size, at one side.
    """
    if source.energy == 0 or other.energy == 0 or source.spectrum.shape != other.spectrum.shape:
        return None
    window = _window(source.side)
    near = np.r_[-window:0, 0 : window + 1]
    rows = scipy.fft.ifft(other.spectrum * source.spectrum.conj(), axis=0)[near]  # the others are not looked at
    centred = scipy.fft.ifft(rows, axis=1)[:, near].real / (source.energy * other.energy)
    radius = _radius(window)
    surroundings = centred[radius > FAR * source.side]
    score = (centred[radius <= NEAR].max() - surroundings.mean()) / max(surroundings.std(), 1e-9)
    return Agreement(float(score), float(radius.ravel()[centred.argmax()]) * source.scale)


def _window(side: int) -> int:
    """Return the largest shift looked at, in field pixels."""
    return round(WINDOW * side)


@cache
def _radius(window: int) -> np.ndarray:
    """Return how far each shift in the window is from none."""
    shifts = np.arange(-window, window + 1)
    return np.hypot(shifts[:, None], shifts)


def _field(image: np.ndarray, top: float, side: int, shape: tuple[int, ...]) -> Field:
    """Return the field of an image whose values end at ``top``; ``shape`` is that before it was made smaller."""
    height, width = shape[:2]
    scale = max(height, width) / side
    size = (max(round(width / scale), 1), max(round(height / scale), 1))
    small: np.ndarray = _averaged(image, size).astype(np.float32) / top
    small = cv2.GaussianBlur(small, (0, 0), 1)
    gx, gy = (cv2.Sobel(small, cv2.CV_32F, *order, scale=1 / 8) for order in ((1, 0), (0, 1)))
    real, imaginary = _over_channels((gx - gy) * (gx + gy)), _over_channels(2 * gx * gy)
    strength = np.sqrt(real * real + imaginary * imaginary)
    share = 1 / np.sqrt(strength + np.float32(1e-12))  # as strong as the gradient, not its square
    field = cv2.merge([real * share, imaginary * share]).view(np.complex64)[..., 0]
    flat = float(np.sqrt(strength).mean()) < FLAT
    # a quarter of padding keeps the wrapped-around part beyond the window
    padded = [scipy.fft.next_fast_len(max(n + n // 4, 2 * _window(side) + 1)) for n in field.shape]
    return Field(scipy.fft.fft2(field, padded), 0.0 if flat else float(np.linalg.norm(field)), scale, side)


def _averaged(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return an image at a smaller width and height, halved first as often as it can be, which OpenCV is fast at."""
    smaller: np.ndarray = image
    height, width = image.shape[:2]
    while width % 2 == height % 2 == 0 and width >= 2 * size[0] and height >= 2 * size[1]:
        width, height = width // 2, height // 2
        smaller = cv2.resize(smaller, (width, height), interpolation=cv2.INTER_AREA)
    return cv2.resize(smaller, size, interpolation=cv2.INTER_AREA)


def _over_channels(image: np.ndarray) -> np.ndarray:
    """Return the (H, W) sum of the channels of an (H, W) or (H, W, C) image."""
    return image if image.ndim == 2 else cv2.transform(image, np.ones((1, image.shape[2]), np.float32))
