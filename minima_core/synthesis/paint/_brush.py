"""How strokes look: every pixel asks the stroke on top of it where along and across its bristles it lies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from minima_core.random import rng as generator
from minima_core.synthesis._filters import gaussian
from minima_core.synthesis.paint._placement import StrokeSet

LENGTH, ACROSS = 256, 64  # of the bristle texture
BITS = 4  # fixed-point digits of OpenCV's drawing coordinates


@dataclass(frozen=True)
class Layer:
    """Paint of one brush: (H, W, 3) colour, (H, W) opacity and (H, W) height, all float32."""

    colour: np.ndarray
    opacity: np.ndarray
    height: np.ndarray

    def over(self, canvas: np.ndarray, relief: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the canvas and its relief with this layer on top."""
        alpha = self.opacity[..., None]
        return canvas + alpha * (self.colour - canvas), relief + self.opacity * (self.height - relief)


def lay(strokes: StrokeSet, shape: tuple[int, int], rng: np.random.Generator) -> Layer:
    """Return the layer that ``strokes`` make on a canvas of ``shape`` (H, W); later strokes lie on top."""
    on_top = _topmost(strokes, shape).ravel()
    covered = np.flatnonzero(on_top)
    which = on_top[covered] - 1
    pixels = np.stack([covered % shape[1], covered // shape[1]], 1).astype(np.float32)
    along, across = _coordinates(strokes, which, pixels)
    shift = rng.integers(0, LENGTH, len(strokes)).astype(np.float32)
    row = np.clip((across + 1) * np.float32(ACROSS / 2), 0, ACROSS - 1).astype(np.int32)
    column = (along * np.float32(ACROSS / 4) + shift[which]).astype(np.int32) % LENGTH
    bristle = _bristles().ravel().take(row * LENGTH + column)
    flank = np.abs(across)
    colour = np.zeros((on_top.size, 3), np.float32)
    opacity, height = np.zeros(on_top.size, np.float32), np.zeros(on_top.size, np.float32)
    colour[covered] = strokes.colour.take(which, axis=0) * (np.float32(0.95) + np.float32(0.1) * bristle)[:, None]
    opacity[covered] = np.clip((1 - flank) * 3 + bristle, 0, 1)  # ragged flanks: the outer bristles skip
    thickness = np.float32(min(1.0, strokes.width / 8))
    height[covered] = thickness * (0.35 + 0.65 * bristle) * np.sqrt(np.maximum(1 - flank * flank, 0))
    return Layer(colour.reshape(*shape, 3), opacity.reshape(shape), height.reshape(shape))


def _topmost(strokes: StrokeSet, shape: tuple[int, int]) -> np.ndarray:
    """Return (H, W) int32: 1 + the number of the last stroke that covers a pixel, 0 where there is none."""
    canvas = np.zeros(shape, np.int32)
    spines = np.round(strokes.spine * (1 << BITS)).astype(np.int32)
    thickness = max(1, round(strokes.width))
    for number, spine in enumerate(spines, start=1):
        cv2.polylines(canvas, [spine], False, number, thickness, cv2.LINE_8, BITS)
    return canvas


def _coordinates(strokes: StrokeSet, which: np.ndarray, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return how far (P, 2) pixels lie along (in half widths) and across (-1 to 1) the strokes ``which`` (P,).

    A stroke's spine is taken as a parabola over its chord, which is exact enough for strokes of a few widths.
    """
    first, last = strokes.spine[:, 0], strokes.spine[:, -1]
    middle = strokes.spine[:, strokes.spine.shape[1] // 2]
    chord = last - first
    length = np.linalg.norm(chord, axis=1, keepdims=True)
    axis = np.where(length > 1e-3, chord / np.maximum(length, 1e-3), np.array((1, 0), np.float32))
    normal = np.stack([-axis[:, 1], axis[:, 0]], 1)
    centre = (first + last) / 2
    sag = ((middle - centre) * normal).sum(1, keepdims=True)
    table = np.hstack([centre, axis, sag, np.maximum(length / 2, 0.5)]).astype(np.float32)
    cx, cy, ax, ay, bend, half = table.take(which, axis=0).T
    x, y = pixels[:, 0] - cx, pixels[:, 1] - cy
    u, v = x * ax + y * ay, y * ax - x * ay
    v = v - bend * np.maximum(1 - (u / half) ** 2, -1)
    return u / np.float32(strokes.width / 2), v / np.float32(strokes.width / 2)


@cache
def _bristles() -> np.ndarray:
    """Return the (ACROSS, LENGTH) float32 height of bristle marks in [0, 1], periodic along the stroke."""
    noise = generator(0, "bristles").standard_normal((ACROSS, 3 * LENGTH)).astype(np.float32)
    noise[:, LENGTH : 2 * LENGTH] = noise[:, :LENGTH]
    noise[:, 2 * LENGTH :] = noise[:, :LENGTH]
    fine = cv2.GaussianBlur(noise, (0, 0), sigmaX=24, sigmaY=1.2)
    coarse = cv2.GaussianBlur(noise, (0, 0), sigmaX=40, sigmaY=5)
    marks = (fine / fine.std() + 0.7 * coarse / coarse.std())[:, LENGTH : 2 * LENGTH]
    low, high = np.percentile(marks, (2, 98))
    return np.clip((marks - low) / (high - low), 0, 1).astype(np.float32)


def impasto(relief: np.ndarray) -> np.ndarray:
    """Return (H, W) float32: how much lighter (or darker) a relief is under a light from the upper left."""
    smooth = gaussian(relief, 0.7)
    gx = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8, borderType=cv2.BORDER_REPLICATE)
    gy = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8, borderType=cv2.BORDER_REPLICATE)
    return np.clip(gx + gy, -0.5, 0.5)
