"""The picture's depth as a relief lit by a radar from the side: facing slopes, shadow, layover."""

from __future__ import annotations

import math

import cv2
import numpy as np

from minima_core.synthesis._filters import gaussian

SMOOTH = 1.0  # pixels of the reduced relief over which slopes are taken; the steps of a depth sensor lie below
SHALLOW = 0.3  # log depth range that is not stretched to the full height: a wall with sensor noise stays flat
STEEPEST = math.sin(math.radians(8))  # sine of the local incidence below which a slope gets no brighter
TWOFOLD = 2.0  # power where two parts of the relief lie at one range
SLACK = 0.25  # pixels; less than this neither shades nor folds


def relief_of(depth: np.ndarray, height: float) -> np.ndarray:
    """Return (H, W) float32 heights in pixels towards the camera: 0 to about ``height``, 0 where depth is unknown.

    Log depth, because its slope across the picture is that of the surface whatever the distance, and bounded, because
    the far side of a street would otherwise lie thousands of pixels below its near side and all of it in shadow.
    """
    known = depth > 0
    nearest, farthest = np.percentile(depth[known][::4], [2, 98])
    log = cv2.log(np.clip(depth, np.float32(nearest), np.float32(farthest)))
    high = math.log(farthest)
    return (np.float32(high) - log) * (known * np.float32(height / max(high - math.log(nearest), SHALLOW)))


def illuminate(height: np.ndarray, known: np.ndarray, *, look: float, incidence: float) -> np.ndarray:
    """Return (H, W) float32 factors on backscattered power: 1 on flat ground and where nothing is known, 0 in shadow.

    Args:
        height: (H, W) float32, pixels.
        known: (H, W) bool, where it is known.
        look: direction of the pulse in the picture, degrees from x to y.
        incidence: its angle from the vertical, degrees.
    """
    # every second pixel: a quarter of the work, and no coarser than the radar's own resolution
    low, there = height[::2, ::2] / 2, known[::2, ::2]
    factors = _facing(low, there, math.radians(look), math.radians(incidence))
    shadow, fold = shadow_and_layover(low, there, look=look, incidence=incidence)
    factors[fold] *= np.float32(TWOFOLD)
    factors[shadow] = 0
    halve, size = np.array([[0.5, 0, 0], [0, 0.5, 0]]), height.shape[::-1]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(factors, halve, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _facing(height: np.ndarray, known: np.ndarray, look: float, incidence: float) -> np.ndarray:
    """Return (H, W) float32 power of slopes against flat ground.

    A Lambertian surface sends back the squared cosine of the local incidence angle; a pixel of ground is as bright as
    its slope is long in range, which divides by the sine.
    """
    weight = gaussian(known.astype(np.float32), SMOOTH)
    smooth = gaussian(height * known, SMOOTH) / np.maximum(weight, np.float32(1e-3))
    gx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8, borderType=cv2.BORDER_REPLICATE)
    gy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8, borderType=cv2.BORDER_REPLICATE)
    slope = gx * np.float32(math.cos(look)) + gy * np.float32(math.sin(look))
    slope[~known] = 0
    length = np.sqrt(1 + slope * slope)
    cosine = np.maximum(1 + slope * np.float32(math.tan(incidence)), 0) / length  # each against that of flat ground
    sine = np.abs(1 - slope * np.float32(1 / math.tan(incidence))) / length
    return cosine * cosine / np.maximum(sine, np.float32(STEEPEST / math.sin(incidence)))


def shadow_and_layover(
    height: np.ndarray, known: np.ndarray, *, look: float, incidence: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return two (H, W) bool masks: what the pulse does not reach, and what shares its range with something else.

    The relief is turned until the pulse runs down its columns. A pixel is in shadow if something nearer to the radar
    stands above its ray, that is if height + range / tan(incidence) was larger before; it is laid over if the slant
    range, range * sin(incidence) - height * cos(incidence), was larger before or will be smaller behind.
    """
    turn, size = _turn(height.shape, look)
    turned = cv2.warpAffine(height, turn, size, flags=cv2.INTER_LINEAR)
    there = cv2.warpAffine(known.view(np.uint8), turn, size, flags=cv2.INTER_NEAREST) > 0
    theta = math.radians(incidence)
    down = np.arange(size[1], dtype=np.float32)[:, None]
    ray = np.where(there, turned + down / np.float32(math.tan(theta)), -np.inf)
    shadow = there & (np.maximum.accumulate(ray, axis=0) > ray + SLACK)
    slant = down * np.float32(math.sin(theta)) - turned * np.float32(math.cos(theta))
    before = np.maximum.accumulate(np.where(there, slant, -np.inf), axis=0)
    behind = np.minimum.accumulate(np.where(there, slant, np.inf)[::-1], axis=0)[::-1]
    fold = there & ((before > slant + SLACK) | (behind < slant - SLACK)) & ~shadow
    both = cv2.merge([shadow.view(np.uint8), fold.view(np.uint8)])
    back = cv2.warpAffine(both, turn, height.shape[::-1], flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP) > 0
    return back[..., 0] & known, back[..., 1] & known


def _turn(shape: tuple[int, ...], look: float) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the (2, 3) affine map that turns ``look`` to point down, and the width and height that hold the result."""
    height, width = shape
    angle = math.radians(90 - look)
    c, s = math.cos(angle), math.sin(angle)
    size = math.ceil(abs(c) * width + abs(s) * height), math.ceil(abs(s) * width + abs(c) * height)
    turn = np.array([[c, -s], [s, c]])
    centre, middle = (np.array(sides) / 2 - 0.5 for sides in ((width, height), size))
    return np.column_stack([turn, middle - turn @ centre]), size
