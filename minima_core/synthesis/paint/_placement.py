"""Where strokes go: one candidate a grid cell, at its worst pixel, drawn out along the flow."""

from __future__ import annotations

from dataclasses import dataclass, replace

import cv2
import numpy as np

STEPS = 4  # brush widths that a stroke may grow by on either side; every second point is kept
SPACING = 0.8  # side of a grid cell in brush widths
BREAK = 0.12  # change of colour (mean over channels) at which a stroke ends
_MEAN = np.full((1, 3), 1 / 3, np.float32)


@dataclass(frozen=True)
class StrokeSet:
    """N strokes of one brush, in the order in which they are laid.

    Attributes:
        spine: (N, STEPS + 1, 2) float32 pixels (x, y) from one end to the other; ended strokes repeat their last point.
        colour: (N, 3) float32 RGB in [0, 1].
        width: the brush's width in pixels.
    """

    spine: np.ndarray
    colour: np.ndarray
    width: float

    def __len__(self) -> int:
        """Return how many strokes there are."""
        return len(self.colour)

    def recoloured(self, spread: float, rng: np.random.Generator) -> StrokeSet:
        """Return the strokes with brightness, and a little hue, varied by up to ``spread``."""
        light = rng.uniform(-spread, spread, (len(self), 1))
        hue = rng.uniform(-spread, spread, (len(self), 3)) * 0.4
        return replace(self, colour=np.clip(self.colour + light + hue, 0, 1).astype(np.float32))


def place(
    reference: np.ndarray,
    canvas: np.ndarray,
    flow: np.ndarray,
    brush: float,
    *,
    tolerance: float,
    rng: np.random.Generator,
) -> StrokeSet:
    """Return the strokes that bring (H, W, 3) float32 ``canvas`` nearer to ``reference``, in a random order.

    A cell of the grid gets a stroke when its mean error exceeds ``tolerance``; ``flow`` is (H, W, 2).
    """
    error = cv2.blur(cv2.transform(np.abs(reference - canvas), _MEAN), (3, 3))
    x, y, mean = _worst_pixels(error, max(2, round(SPACING * brush)), rng)
    chosen = rng.permutation(np.flatnonzero(mean >= tolerance))
    start = np.stack([x[chosen], y[chosen]], -1).astype(np.float32)
    colour = reference[y[chosen], x[chosen]]
    halves = [_grow(start, colour, reference, flow, brush, sign) for sign in (1.0, -1.0)]
    spine = np.concatenate([halves[1][:, ::-1], start[:, None], halves[0]], 1)
    return StrokeSet(spine, colour, brush)


def _worst_pixels(error: np.ndarray, cell: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return x, y of the largest error in each ``cell`` x ``cell`` square, and the square's mean error."""
    height, width = error.shape
    rows, columns = -(-height // cell), -(-width // cell)
    padded = np.full((rows * cell, columns * cell), -1, np.float32)
    padded[:height, :width] = error * rng.uniform(0.8, 1.0, error.shape).astype(np.float32)  # flat areas: anywhere
    cells = padded.reshape(rows, cell, columns, cell).swapaxes(1, 2).reshape(rows * columns, cell * cell)
    worst = cells.argmax(1)
    y = np.repeat(np.arange(rows), columns) * cell + worst // cell
    x = np.tile(np.arange(columns), rows) * cell + worst % cell
    inside = np.maximum((cells >= 0).sum(1), 1)
    return x, y, np.maximum(cells, 0).sum(1) / inside / 0.9


def _grow(
    start: np.ndarray, colour: np.ndarray, reference: np.ndarray, flow: np.ndarray, brush: float, sign: float
) -> np.ndarray:
    """Return (N, STEPS / 2, 2) points reached from (N, 2) ``start`` along the flow, still once the colour breaks."""
    height, width = flow.shape[:2]
    point, alive = start, np.ones(len(start), bool)
    direction: np.ndarray | None = None
    reached = []
    for _ in range(STEPS):
        column, row = point[:, 0].round().astype(int), point[:, 1].round().astype(int)
        ahead = flow[row, column]
        if direction is None:
            direction = sign * ahead
        else:
            turn = np.where((ahead * direction).sum(1, keepdims=True) < 0, np.float32(-1), np.float32(1))
            direction = 0.5 * direction + 0.5 * turn * ahead
            direction = direction / np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-6)
        target = np.clip(point + np.float32(brush) * direction, 0, (width - 1, height - 1)).astype(np.float32)
        there = reference[target[:, 1].round().astype(int), target[:, 0].round().astype(int)]
        alive &= np.abs(there - colour) @ _MEAN[0] < BREAK
        point = np.where(alive[:, None], target, point)
        reached.append(point)
    return np.stack(reached[1::2], 1)
