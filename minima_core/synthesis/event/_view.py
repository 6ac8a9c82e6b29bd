"""A picture seen from beside its camera: forward through its depth, with what is nearer in front."""

from __future__ import annotations

import cv2
import numpy as np

from minima_core.synthesis.event._path import project

SAME = 1.05  # inverse depths that differ by less than this factor are one surface
REACH = 4  # pixels of uncovered ground that are filled from the farther side only
UNKNOWN = np.float32(np.inf)


class Scene:
    """The points of a picture, prepared once to be seen from many poses."""

    def __init__(self, picture: np.ndarray, inverse: np.ndarray, K: np.ndarray) -> None:
        """Take (H, W) float32 ``picture``, its (H, W) float32 inverse depth, positive everywhere, and (3, 3) ``K``."""
        self.picture, self.inverse, self.K = picture, inverse, K
        self.height, self.width = picture.shape
        ys, xs = np.mgrid[: self.height, : self.width].astype(np.float32)
        self.pixels = np.stack([xs.ravel(), ys.ravel(), np.ones(xs.size, np.float32), inverse.ravel()])
        self.inner = np.pad(np.ones(picture.shape, bool), 1).ravel()

    def seen_from(self, T: np.ndarray) -> np.ndarray:
        """Return the (H, W) float32 picture of the camera at ``T`` (this camera to that one).

        Ground that comes into sight repeats the edge of the farther surface beside it.
        """
        nearest, back = self._nearest(T), np.linalg.inv(T)
        x, y, _ = project(np.vstack([self.pixels[:3], nearest[1:-1, 1:-1].reshape(1, -1)]), self.K, back)
        x, y = (np.pad(v.reshape(self.height, self.width), 1) for v in (x, y))
        self._fill(nearest, x, y, back)
        x, y = (np.ascontiguousarray(v[1:-1, 1:-1]) for v in (x, y))
        return cv2.remap(self.picture, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def _nearest(self, T: np.ndarray) -> np.ndarray:
        """Return (H + 2, W + 2) inverse depth at ``T``, 0 where no point falls and in the frame around the picture."""
        x, y, depth = project(self.pixels, self.K, T)
        column, row = (
            np.fmin(np.fmax(np.rint(v) + 1, 0), side + 1).astype(np.intp)  # NaN, behind the camera, becomes 0
            for v, side in ((x, self.width), (y, self.height))
        )
        place = row * (self.width + 2) + column
        value = np.divide(self.pixels[3], depth, out=np.zeros_like(depth), where=(depth > 0) & self.inner[place])
        nearest = np.zeros(self.inner.shape, np.float32)
        while len(place):  # of several points in one place any may have been written; then the nearer ones again
            nearest[place] = value
            beaten = np.flatnonzero(value > nearest[place])
            place, value = place[beaten], value[beaten]
        return nearest.reshape(self.height + 2, self.width + 2)

    def _fill(self, nearest: np.ndarray, x: np.ndarray, y: np.ndarray, back: np.ndarray) -> None:
        """Say where in the picture the pixels without a point look, in place, ring by ring from those that have one.

        A pixel continues the farthest of its neighbours. Where the picture shows something nearer at that place, it
        looks where the neighbour does, which repeats the edge.

        Args:
            nearest: (H + 2, W + 2) inverse depth, 0 where unknown and in the frame.
            x: (H + 2, W + 2) columns in the picture.
            y: (H + 2, W + 2) rows in the picture.
            back: (4, 4) to the camera of the picture.
        """
        stride = self.width + 2
        around = np.array([dy * stride + dx for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dx or dy])
        holes = np.flatnonzero(np.pad(nearest[1:-1, 1:-1] == 0, 1))
        farthest = cv2.erode(np.where(nearest > 0, nearest, UNKNOWN), np.ones((2 * REACH + 1,) * 2, np.uint8)).ravel()
        x, y, inverse = x.ravel(), y.ravel(), nearest.ravel()  # views
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
            x[here], y[here] = np.where(shown, own_x, x[there]), np.where(shown, own_y, y[there])
            inverse[here] = value
            holes = holes[~found]
            ring += 1

    def _inverse_at(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        columns, rows = (
            np.clip(np.rint(v), 0, side - 1).astype(np.intp) for v, side in ((x, self.width), (y, self.height))
        )
        return self.inverse[rows, columns]
