"""A town in the making: its surfaces, what stands in the way, and the light on them."""

from __future__ import annotations

from dataclasses import dataclass, field

import cv2
import numpy as np

from minima_core.data.datasets._world.surfaces import Surface
from minima_core.data.datasets._world.textures import Texture

UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Obstacle:
    """What casts a shadow and no camera may stand in: a convex footprint (n, 2), its lower and its upper end."""

    footprint: np.ndarray
    bottom: float
    top: float


@dataclass
class Town:
    """A world that can be rendered.

    Attributes:
        half: half width and half depth of the square in metres.
        sun: unit vector towards the sun.
        tiles: textures of fine detail by name, which ``tile`` looks up.
        panorama: (h, w, 3) uint8 sky.
        surfaces: everything there is.
        obstacles: footprints.
        subjects: (x, y, z) points worth looking at.
    """

    half: tuple[float, float]
    sun: np.ndarray
    tiles: dict[str, Texture]
    panorama: np.ndarray
    surfaces: list[Surface] = field(default_factory=list)
    obstacles: list[Obstacle] = field(default_factory=list)
    subjects: list[np.ndarray] = field(default_factory=list)

    def tile(self, *names: str) -> Texture:
        """Return the first of the named detail tiles that this world has."""
        return next(self.tiles[name] for name in names if name in self.tiles)

    def add(self, surfaces: list[Surface], *, obstacle: Obstacle | None = None) -> None:
        """Put something into the town."""
        self.surfaces.extend(surfaces)
        if obstacle is not None:
            self.obstacles.append(obstacle)

    def light(self) -> np.ndarray:
        """Return (len(surfaces), 3): sky light from everywhere and sun light from one side."""
        normals = np.stack([s.normal for s in self.surfaces])
        direct = np.clip(normals @ self.sun, 0, None)
        both = np.array([s.both_sides for s in self.surfaces])
        direct[both] = 0.35
        sky = np.array([0.56, 0.59, 0.64])
        return sky + direct[:, None] * np.array([0.62, 0.58, 0.5])

    def free(self, point: np.ndarray, margin: float) -> bool:
        """Say whether a (2,) place is at least ``margin`` away from every obstacle that reaches the ground."""
        for obstacle in self.obstacles:
            hull = obstacle.footprint.astype(np.float32).reshape(-1, 1, 2)
            here = (float(point[0]), float(point[1]))
            if obstacle.bottom < 1.0 and cv2.pointPolygonTest(hull, here, True) > -margin:
                return False
        return True


def rectangle(centre: np.ndarray, size: tuple[float, float], yaw: float) -> np.ndarray:
    """Return the (4, 2) corners of a turned rectangle."""
    ex, ey = np.array([np.cos(yaw), np.sin(yaw)]), np.array([-np.sin(yaw), np.cos(yaw)])
    half = [(sx * size[0] / 2, sy * size[1] / 2) for sx, sy in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    return np.stack([centre[:2] + a * ex + b * ey for a, b in half])
