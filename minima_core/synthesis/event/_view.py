"""A picture seen from beside its camera: forward through its depth, with what is nearer in front."""

from __future__ import annotations

import cv2
import numpy as np

from minima_core.synthesis.event._path import project

SAME = 1.05  # inverse depths that differ by less than this factor are one surface
REACH = 4  # pixels of uncovered ground that are filled from the farther side only
PART = 1 << 15  # points that are projected together: what comes between stays in the processor's cache
UNKNOWN = np.float32(np.inf)


class Scene:
    """The points of a picture, prepared once to be seen from many poses."""

    def __init__(self, picture: np.ndarray, inverse: np.ndarray, K: np.ndarray) -> None:
        """Take (H, W) float32 ``picture``, its (H, W) float32 inverse depth, positive everywhere, and (3, 3) ``K``."""
        self.picture, self.inverse, self.K = picture, inverse, K
        self.height, self.width = picture.shape
        ys, xs = np.mgrid[: self.height, : self.width].astype(np.float32)
        self.pixels = np.stack([xs.ravel(), ys.ravel(), np.ones(xs.size, np.float32), inverse.ravel()])
        self.seen = self.pixels.copy()  # the same with the inverse depth of another pose
        self.parts = [slice(start, start + PART) for start in range(0, self.picture.size, PART)]

    def seen_from(self, T: np.ndarray) -> np.ndarray:
        """Return the (H, W) float32 picture of the camera at ``T`` (this camera to that one).

        Ground that comes into sight repeats the edge of the farther surface beside it.
        """
        nearest, back = self._nearest(T), np.linalg.inv(T)
        self.seen[3] = nearest[1:-1, 1:-1].ravel()
        x, y = np.empty((2, self.picture.size), np.float32)
        for part in self.parts:
            x[part], y[part], _ = project(self.seen[:, part], self.K, back)
        self._fill(nearest, x, y, back)
        x, y = x.reshape(self.picture.shape), y.reshape(self.picture.shape)
        return cv2.remap(self.picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def _nearest(self, T: np.ndarray) -> np.ndarray:
        """Return (H + 2, W + 2) inverse depth at ``T``, 0 where no point falls and in the frame around the picture."""
        flat = np.zeros((self.height + 2) * (self.width + 2), np.float32)
        for part in self.parts:
            place, value = self._landing(self.pixels[:, part], T)
            while len(ahead := np.flatnonzero(value > flat.take(place))):
                place, value = place[ahead], value[ahead]
                flat[place] = value  # of several points in one place any may be written; then the nearer ones again
        nearest = flat.reshape(self.height + 2, self.width + 2)
        nearest[[0, -1]] = nearest[:, [0, -1]] = 0
        return nearest

    def _landing(self, points: np.ndarray, T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return where in the flat (H + 2, W + 2) each of (4, N) points falls at ``T``, and its inverse depth there."""
        x, y, depth = project(points, self.K, T)
        column, row = (  # NaN, behind the camera, becomes -1: the frame
            np.fmin(np.fmax(np.rint(v, out=v), -1, out=v), side, out=v).astype(np.intp)
            for v, side in ((x, self.width), (y, self.height))
        )
        with np.errstate(divide="ignore", invalid="ignore"):
            value = points[3] / depth
        return (row + 1) * (self.width + 2) + column + 1, np.where(depth > 0, value, 0)

    def _fill(self, nearest: np.ndarray, x: np.ndarray, y: np.ndarray, back: np.ndarray) -> None:
        """Say where in the picture the pixels without a point look, in place, ring by ring from those that have one.

        A pixel continues the farthest of its neighbours. Where the picture shows something nearer at that place, it
        looks where the neighbour does, which repeats the edge.

        Args:
            nearest: (H + 2, W + 2) inverse depth, 0 where unknown and in the frame.
            x: (H * W,) columns in the picture.
            y: (H * W,) rows in the picture.
            back: (4, 4) to the camera of the picture.
        """
        stride = self.width + 2
        around = np.array([dy * stride + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dx or dy])
        holes = np.flatnonzero(np.pad(nearest[1:-1, 1:-1] == 0, 1))
        farthest = cv2.erode(np.where(nearest > 0, nearest, UNKNOWN), np.ones((2 * REACH + 1,) * 2, np.uint8)).ravel()
        inverse = nearest.ravel()  # a view
        ring = 0
        while len(holes):
            beside = holes[:, None] + around
            values = np.where(inverse[beside] > 0, inverse[beside], UNKNOWN)
            best, value = values.argmin(1), values.min(1)
            found = value / SAME < (farthest[holes] if ring < REACH else UNKNOWN)
            if ring >= REACH and not found.any():
                break
            here, there, value = holes[found], beside[found, best[found]], value[found]
            points = np.stack([here % stride - 1, here // stride - 1, np.ones(len(here)), value]).astype(np.float32)
            own_x, own_y, _ = project(points, self.K, back)
            shown = self._inverse_at(own_x, own_y) <= SAME * value
            inverse[here] = value
            here, there = ((at // stride - 1) * self.width + at % stride - 1 for at in (here, there))
            x[here], y[here] = np.where(shown, own_x, x[there]), np.where(shown, own_y, y[there])
            holes = holes[~found]
            ring += 1

    def _inverse_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        columns, rows = (
            np.clip(np.rint(v), 0, side - 1).astype(np.intp) for v, side in ((x, self.width), (y, self.height))
        )
        return self.inverse[rows, columns]
