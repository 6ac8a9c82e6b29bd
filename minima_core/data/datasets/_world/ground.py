"""The ground of a town: paving, lawn, road, litter, and the shadows that fall on it."""

from __future__ import annotations

import cv2
import numpy as np

from minima_core.data.datasets._world import painters as paint
from minima_core.data.datasets._world.photographs import WorldName
from minima_core.data.datasets._world.scenery import Town
from minima_core.data.datasets._world.surfaces import quad
from minima_core.data.datasets._world.textures import noise
from minima_core.data.materials import Material

GROUND_TEXELS = 22  # a metre


def add_ground(town: Town, random: np.random.Generator, world: WorldName) -> None:
    """Lay the square and what surrounds it, with the shadows that the sun casts on them."""
    a, b = town.half
    kind = str(random.choice(["slabs", "lawn", "gravel"], p=[0.55, 0.2, 0.25]))
    inner = (a - random.uniform(1.5, 3.0), b - random.uniform(1.5, 3.0))
    outer = (a + 40, b + 40)
    _piece(town, random, world, (-inner[0], -inner[1], inner[0], inner[1]), kind)
    rim = (a + 6, b + 6)
    strips = [
        (-rim[0], inner[1], rim[0], rim[1]),
        (-rim[0], -rim[1], rim[0], -inner[1]),
        (-rim[0], -inner[1], -inner[0], inner[1]),
        (inner[0], -inner[1], rim[0], inner[1]),
    ]
    for strip in strips:
        _piece(town, random, world, strip, "road")
    # behind the houses nothing but the far ground shows
    far = paint.flat(np.array((120, 118, 112)), Material.GROUND, detail=1.0)
    for x0, y0, x1, y1 in (
        (-outer[0], rim[1], outer[0], outer[1]),
        (-outer[0], -outer[1], outer[0], -rim[1]),
        (-outer[0], -rim[1], -rim[0], rim[1]),
        (rim[0], -rim[1], outer[0], rim[1]),
    ):
        town.add([quad((x0, y1, 0), (x1 - x0, 0, 0), (0, y0 - y1, 0), far, detail=town.tile("asphalt"), tile=4.0)])


def _piece(
    town: Town,
    random: np.random.Generator,
    world: WorldName,
    extent: tuple[float, float, float, float],
    kind: str,
) -> None:
    """Lay one rectangle (x0, y0, x1, y1) of ground."""
    x0, y0, x1, y1 = extent
    size = (round((x1 - x0) * GROUND_TEXELS), round((y1 - y0) * GROUND_TEXELS))
    looks = {
        "slabs": ((172, 164, 150), Material.CONCRETE, ("plaster",)),
        "lawn": ((104, 124, 66), Material.VEGETATION, ("grass", "leaves")),
        "gravel": ((168, 152, 128), Material.GROUND, ("gravel", "asphalt")),
        "road": ((112, 110, 108), Material.ASPHALT, ("asphalt",)),
    }
    colour, material, details = looks[kind]
    canvas = paint.Canvas.of(size, np.array(colour) * random.uniform(0.85, 1.1), material, 1.0)
    if kind == "slabs":
        side = GROUND_TEXELS * random.uniform(0.6, 1.2)
        paint.courses(canvas, random, side * random.uniform(1.0, 1.8), side, 0.1)
    canvas.base[..., :3] *= (1 + 0.12 * noise(random, size, coarsest=max(size) / 4, octaves=7))[..., None]
    _litter(canvas, random, world, kind)
    canvas.base[..., :3] *= _shadows(town, extent, size)[..., None]
    texture = canvas.texture()
    origin, along, down = (x0, y1, 0.0), (x1 - x0, 0.0, 0.0), (0.0, y0 - y1, 0.0)
    town.add([quad(origin, along, down, texture, detail=town.tile(*details), tile=1.7)])


def _litter(canvas: paint.Canvas, random: np.random.Generator, world: WorldName, kind: str) -> None:
    """Scatter what lies about: stains, leaves, manholes, cracks, lines, chalk pictures, puddles."""
    h, w = canvas.material.shape
    area = h * w / GROUND_TEXELS**2
    for _ in range(int(area * 0.5)):
        centre = (int(random.integers(w)), int(random.integers(h)))
        axes = (int(random.integers(2, 16)), int(random.integers(2, 10)))
        tone = float(random.uniform(0.72, 1.2))
        x0, y0 = max(0, centre[0] - 18), max(0, centre[1] - 18)
        patch = canvas.base[y0 : centre[1] + 18, x0 : centre[0] + 18, :3]
        stain = np.zeros(patch.shape[:2], np.float32)
        cv2.ellipse(stain, (centre[0] - x0, centre[1] - y0), axes, float(random.uniform(0, 180)), 0, 360, 1.0, -1)
        patch *= (1 + (tone - 1) * stain)[..., None]
    for _ in range(int(area * 1.2)):
        centre = (int(random.integers(w)), int(random.integers(h)))
        leaf = np.array((150, 110, 50)) * random.uniform(0.5, 1.4, 3)
        cv2.circle(canvas.base, centre, int(random.integers(1, 3)), (*map(float, leaf), 120.0), -1)
    if kind == "lawn":
        return
    for _ in range(int(area / 45) + 1):
        centre = (int(random.integers(w)), int(random.integers(h)))
        cv2.circle(canvas.base, centre, 8, (66.0, 62.0, 60.0, 120.0), -1)
        cv2.circle(canvas.base, centre, 6, (98.0, 94.0, 90.0, 200.0), 2)
        cv2.circle(canvas.material, centre, 8, int(Material.METAL), -1)
    for _ in range(int(area / 20)):
        steps = random.normal(0, 7, (9, 2)).cumsum(axis=0)
        line = (steps + random.integers((w, h))).astype(np.int32)
        cv2.polylines(canvas.base, [line], False, (70.0, 66.0, 62.0, 200.0), 1, cv2.LINE_AA)
    for _ in range(int(area / 60)):
        side = int(GROUND_TEXELS * random.uniform(1.0, 2.4))
        chalk = paint.crop(random, world, (side, side))
        canvas.paste(
            random.uniform(0, w - side),
            random.uniform(0, h - side),
            chalk,
            Material(int(canvas.material[0, 0])),
            opacity=0.5,
        )
    if kind == "road":
        for y in range(GROUND_TEXELS, max(h, w), GROUND_TEXELS * 3):
            row, column = (h // 2, y) if w > h else (y, w // 2)
            canvas.box(column, row, *((40, 4) if w > h else (4, 40)), np.array((225, 222, 210)), Material.ASPHALT, 0.8)
    for _ in range(int(random.integers(0, 3))):
        centre = (int(random.integers(w)), int(random.integers(h)))
        axes = (int(random.integers(12, 40)), int(random.integers(8, 24)))
        cv2.ellipse(canvas.base, centre, axes, 0, 0, 360, (104.0, 120.0, 138.0, 20.0), -1)
        cv2.ellipse(canvas.material, centre, axes, 0, 0, 360, int(Material.WATER), -1)


def _shadows(town: Town, extent: tuple[float, float, float, float], size: tuple[int, int]) -> np.ndarray:
    """Return the (H, W) share of light that reaches a piece of ground."""
    mask = np.zeros((size[1], size[0]), np.float32)
    fall = -town.sun[:2] / town.sun[2]
    for obstacle in town.obstacles:
        reach = [obstacle.footprint + fall * z for z in (obstacle.bottom, obstacle.top)]
        hull = cv2.convexHull(np.concatenate(reach).astype(np.float32))[:, 0]
        pixels = (hull - [extent[0], extent[3]]) * [GROUND_TEXELS, -GROUND_TEXELS]
        cv2.fillConvexPoly(mask, pixels.round().astype(np.int32), 1.0)
    return 1 - 0.48 * cv2.GaussianBlur(mask, (0, 0), 1.5)
