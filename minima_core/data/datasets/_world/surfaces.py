"""Flat pieces of the world: a convex polygon in space that wears a texture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from minima_core.data.datasets._world.textures import Texture


@dataclass(frozen=True)
class Surface:
    """A convex polygon, seen from the side where its corners run counter-clockwise (or from both).

    Attributes:
        corners: (n, 3) float64 world, metres, z up.
        origin: (3,) where the texture's top-left corner lies.
        along: (3,) from there to its top-right corner.
        down: (3,) from there to its bottom-left corner; at right angles to ``along``.
        texture: what it wears once.
        detail: tile repeated over it, or None.
        tile: side of the tile in metres.
        both_sides: whether it is seen from behind too.
    """

    corners: np.ndarray
    origin: np.ndarray
    along: np.ndarray
    down: np.ndarray
    texture: Texture
    detail: Texture | None = None
    tile: float = 2.0
    both_sides: bool = False

    @cached_property
    def normal(self) -> np.ndarray:
        """Unit normal on the seen side."""
        normal = np.cross(self.corners[1] - self.corners[0], self.corners[2] - self.corners[0])
        return normal / np.linalg.norm(normal)


def quad(
    origin: Sequence[float] | np.ndarray,
    along: Sequence[float] | np.ndarray,
    down: Sequence[float] | np.ndarray,
    texture: Texture,
    **options: object,
) -> Surface:
    """Return the rectangle whose texture starts at ``origin``, seen from where the texture reads right."""
    o, a, d = (np.asarray(x, np.float64) for x in (origin, along, down))
    return Surface(np.stack([o, o + d, o + d + a, o + a]), o, a, d, texture, **options)  # type: ignore[arg-type]


def triangle(corners: Sequence[np.ndarray], texture: Texture, **options: object) -> Surface:
    """Return the upright or sloping triangle (left, right, top); its texture spans the box around it."""
    left, right, top = (np.asarray(x, np.float64) for x in corners)
    along = right - left
    foot = left + along * ((top - left) @ along) / (along @ along)
    rise = top - foot
    points = np.stack([left, right, top])
    return Surface(points, left + rise, along, -rise, texture, **options)  # type: ignore[arg-type]


def block(
    centre: Sequence[float] | np.ndarray,
    size: Sequence[float],
    yaw: float,
    sides: Sequence[Texture],
    top: Texture | None,
    *,
    details: Texture | None = None,
    tile: float = 1.0,
) -> list[Surface]:
    """Return the four sides (textures used in turn) and the top of an upright box.

    Args:
        centre: (x, y, z) of the middle of its floor.
        size: width, depth, height in metres.
        yaw: turn about the vertical, radians.
        sides: textures of the sides.
        top: texture of the top, None for an open one.
        details: tile on all faces.
        tile: side of the tile in metres.
    """
    ex = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    ey = np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    up = np.array([0.0, 0.0, 1.0])
    w, d, h = size
    middle = np.asarray(centre, np.float64)
    faces = []
    for k, (out, half, right, width) in enumerate(
        [(-ey, d / 2, ex, w), (ex, w / 2, ey, d), (ey, d / 2, -ex, w), (-ex, w / 2, -ey, d)]
    ):
        corner = middle + out * half - right * width / 2 + up * h
        faces.append(quad(corner, right * width, -up * h, sides[k % len(sides)], detail=details, tile=tile))
    if top is not None:
        corner = middle - ex * w / 2 + ey * d / 2 + up * h
        faces.append(quad(corner, ex * w, -ey * d, top, detail=details, tile=tile))
    return faces
