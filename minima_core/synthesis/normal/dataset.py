"""Normals from the data set's own depth maps and intrinsics: planes fitted to inverse depth."""

from __future__ import annotations

import math
from typing import ClassVar

import cv2
import numpy as np
from pydantic import Field

from minima_core.errors import Unavailable
from minima_core.synthesis._ranges import WholeWidth
from minima_core.synthesis.base import Engine, Rendition, Source
from minima_core.synthesis.normal._planes import fit_planes


class DatasetNormal(Engine):
    """Outward normals, x right, y down, z forward: a wall that faces the camera is (0, 0, +1), drawn (127, 127, 255).

    Each pixel takes the normal of the window that contains it and fits a plane best, so that a surface's normals stay
    clean up to its edge. Unknown is the zero vector, drawn (127, 127, 127). Without intrinsics the published rule
    holds (60 degrees over the longer side) and the record says so.
    """

    class Params(Engine.Params):
        """``radii``: half sizes of the windows in pixels; small ones for detail, large ones against sensor noise."""

        radii: tuple[WholeWidth, ...] = Field(min_length=1)

    params: DatasetNormal.Params
    reads: ClassVar[frozenset[str]] = frozenset({"depth", "camera"})

    def _synthesise(self, source: Source, rng: np.random.Generator) -> Rendition:  # noqa: ARG002, nothing is drawn
        if source.depth is None:
            raise Unavailable(
                f"no depth for {source.name}, which normal/dataset needs; this data set has none, use a normal network "
                "or another set"
            )
        height, width = source.depth.shape
        K = default_intrinsics(width, height) if source.K is None else source.K
        normals = normals_of(source.depth, K, self.params.radii)
        known = np.einsum("hwc,hwc->hw", normals, normals) > 0
        if not known.any():
            raise Unavailable(f"the depth of {source.name} holds no surface to take normals from; mend its map")
        drawn = {
            "unknown": round(1 - float(known.mean()), 4),
            "intrinsics": "60 degrees assumed" if source.K is None else "data set",
        }
        return Rendition(encode(normals), drawn)


def default_intrinsics(width: int, height: int) -> np.ndarray:
    """Return the (3, 3) intrinsics that the published engine assumes: 60 degrees over the longer side."""
    focal = max(width, height) / 2 / math.tan(math.radians(30))
    return np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1]])


def encode(normals: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) float normals as uint8: -1 is 0, 0 is 127, 1 is 255 (truncated)."""
    scaled = normals.astype(np.float32)
    scaled += 1
    scaled *= 127.5
    return scaled.astype(np.uint8)


def normals_of(depth: np.ndarray, K: np.ndarray, radii: tuple[int, ...]) -> np.ndarray:
    """Return (H, W, 3) float32 unit normals pointing away from the camera, zero where unknown.

    On a plane n.X = d, inverse depth is linear in the pixel: 1/z = (n/d).K^-1 (x, y, 1). A plane fitted to inverse
    depth therefore gives the normal as K^T times its coefficients, without error on planes at any tilt.
    """
    known = depth > 0
    inverse = np.divide(1.0, depth, out=np.zeros(depth.shape), where=known)
    x, y, z = cv2.split(cv2.transform(fit_planes(inverse, known, radii), K.T))
    length = np.sqrt(x * x + y * y + z * z)
    scale = 1 / np.where(length > 0, length, 1)
    for part in (x, y, z):
        np.multiply(part, scale, out=part)
    return cv2.merge([x, y, z])
