"""Textures with their resolution pyramid, and the noise and tiles that painters start from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from minima_core.data.datasets._world.photographs import WorldName, photographs, read_photograph
from minima_core.random import rng

NEUTRAL = 128  # of a detail tile: leaves the colour below it as it is
TILE = 512  # pixels along the side of a detail tile


@dataclass(frozen=True)
class Texture:
    """A picture that a surface wears.

    Attributes:
        image: (H, W, C) uint8; C is 4 for base textures (RGB and how strongly detail shows), 1 for detail tiles.
        material: (H, W) uint8 material ids, or one id for the whole.
        solid: (H, W) bool, False where one looks through (tree crowns), or None.
    """

    image: np.ndarray
    material: np.ndarray | int
    solid: np.ndarray | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in texels."""
        return self.image.shape[1], self.image.shape[0]

    @cached_property
    def pyramid(self) -> tuple[np.ndarray, np.ndarray]:
        """All levels in one picture, each with a border of one texel, and a (L, 4) table of x0, y0, w, h.

        Level 0 stands left, the others below each other on its right: one ``remap`` then samples any mix of levels.
        """
        levels = [self.image]
        while min(levels[-1].shape[:2]) > 2 and len(levels) < 9:
            h, w = levels[-1].shape[:2]
            small = cv2.resize(levels[-1], ((w + 1) // 2, (h + 1) // 2), interpolation=cv2.INTER_AREA)
            levels.append(small.reshape(*small.shape[:2], self.image.shape[2]))
        border = cv2.BORDER_WRAP if self.image.shape[2] == 1 else cv2.BORDER_REPLICATE
        padded = [np.atleast_3d(cv2.copyMakeBorder(level, 1, 1, 1, 1, border)) for level in levels]
        height = max(padded[0].shape[0], sum(p.shape[0] for p in padded[1:]))
        width = padded[0].shape[1] + (padded[1].shape[1] if len(padded) > 1 else 0)
        sheet = np.zeros((height, width, self.image.shape[2]), np.uint8)
        table, y = [], 0
        for k, level in enumerate(padded):
            x, y0 = (0, 0) if k == 0 else (padded[0].shape[1], y)
            sheet[y0 : y0 + level.shape[0], x : x + level.shape[1]] = level
            table.append((x + 1, y0 + 1, level.shape[1] - 2, level.shape[0] - 2))
            y = y0 + level.shape[0] if k else 0
        return sheet, np.array(table, np.float32)

    def sample(self, u: np.ndarray, v: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Return (N, C) uint8 at (N,) coordinates in [0, 1] (callers wrap those of tiles), bilinear in ``level``."""
        sheet, table = self.pyramid
        row = table[np.clip(level, 0, len(table) - 1)]
        x = row[:, 0] + u * row[:, 2] - 0.5
        y = row[:, 1] + v * row[:, 3] - 0.5
        # remap wants pictures narrower than 32768, so the list of points is folded
        n, width = len(u), 4096
        fold = -(-n // width)
        maps = np.zeros((2, fold * width), np.float32)
        maps[0, :n], maps[1, :n] = x, y
        map_x, map_y = maps.reshape(2, fold, width)
        found = cv2.remap(sheet, map_x, map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return found.reshape(fold * width, -1)[:n]

    def materials(self, u: np.ndarray, v: np.ndarray) -> np.ndarray | int:
        """Return the (N,) ids of the texels that coordinates in [0, 1] fall into."""
        return self._texels(self.material, u, v) if isinstance(self.material, np.ndarray) else self.material

    def opaque(self, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        """Say at which (N,) coordinates the texture is solid."""
        return np.ones(len(u), bool) if self.solid is None else self._texels(self.solid, u, v)

    @staticmethod
    def _texels(grid: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
        h, w = grid.shape
        return grid[np.clip((v * h).astype(np.int32), 0, h - 1), np.clip((u * w).astype(np.int32), 0, w - 1)]


def noise(
    random: np.random.Generator, size: tuple[int, int], *, coarsest: float, octaves: int = 5, wrap: bool = False
) -> np.ndarray:
    """Return (H, W) float32 fractal noise, mean 0, standard deviation about 1; blobs up to ``coarsest`` pixels."""
    w, h = size
    total = np.zeros((h, w), np.float32)
    for octave in range(octaves):
        cell = max(coarsest / 2**octave, 1.0)
        gw, gh = max(2, round(w / cell)), max(2, round(h / cell))
        grid = random.standard_normal((gh, gw)).astype(np.float32)
        if wrap:
            grid = np.pad(grid, 2, mode="wrap")
            full = cv2.resize(grid, (round(w * (gw + 4) / gw), round(h * (gh + 4) / gh)), interpolation=cv2.INTER_CUBIC)
            y0, x0 = (full.shape[0] - h) // 2, (full.shape[1] - w) // 2
            layer = full[y0 : y0 + h, x0 : x0 + w]
        else:
            layer = cv2.resize(grid, (w, h), interpolation=cv2.INTER_CUBIC)
        total += layer * 0.62**octave
        if cell == 1.0:
            break
    return (total - total.mean()) / max(float(total.std()), 1e-6)


def seamless(gray: np.ndarray, fade: int = 48) -> np.ndarray:
    """Return (H, W) float32 whose opposite edges meet: near them it fades into a copy moved by half its size."""
    moved = np.roll(gray, (gray.shape[0] // 2, gray.shape[1] // 2), (0, 1))
    h, w = gray.shape
    ramp_y = np.clip(np.minimum(np.arange(h), np.arange(h)[::-1]) / fade, 0, 1)
    ramp_x = np.clip(np.minimum(np.arange(w), np.arange(w)[::-1]) / fade, 0, 1)
    weight = np.minimum(ramp_y[:, None], ramp_x[None]).astype(np.float32)
    return weight * gray + (1 - weight) * moved


def _tile(values: np.ndarray, contrast: float) -> Texture:
    """Make a detail tile from (H, W) values: mean neutral, ``contrast`` the relative standard deviation."""
    values = (values - values.mean()) / max(float(values.std()), 1e-6)
    return Texture(np.clip(NEUTRAL * (1 + contrast * values), 0, 255).round().astype(np.uint8)[..., None], 0)


def detail_tiles(world: WorldName, seed: int) -> dict[str, Texture]:
    """Return the tiles of a world by name: its photographs of surfaces, and grains drawn from noise."""
    size = (TILE, TILE)
    tiles = {}
    for photo in photographs(world, "tile"):
        gray = cv2.cvtColor(read_photograph(photo), cv2.COLOR_RGB2GRAY).astype(np.float32)
        if photo.name == "brick":
            gray = np.ascontiguousarray(np.rot90(gray))  # its courses run upwards
        flat = gray - cv2.GaussianBlur(gray, (0, 0), 60)  # the photograph's own shading would show the repetition
        tiles[photo.name] = _tile(seamless(flat), 0.30)
    random = rng(seed, world, "tiles")
    plaster = noise(random, size, coarsest=9, octaves=4, wrap=True)
    tiles["plaster"] = _tile(plaster, 0.055)
    speckle = noise(random, size, coarsest=4, octaves=3, wrap=True)
    tiles["asphalt"] = _tile(np.where(speckle > 1.3, 2.5, speckle * 0.7), 0.16)
    grain = cv2.resize(noise(random, (TILE, 16), coarsest=6, octaves=3, wrap=True), size, interpolation=cv2.INTER_CUBIC)
    knots = noise(random, size, coarsest=120, octaves=2, wrap=True)
    tiles["wood"] = _tile(grain + 0.4 * np.sin(3 * knots), 0.15)
    leaves = noise(random, size, coarsest=22, octaves=4, wrap=True)
    tiles["leaves"] = _tile(leaves + 0.3 * speckle, 0.24)
    return tiles


def plain(size: tuple[int, int], colour: np.ndarray, *, detail: float = 1.0) -> np.ndarray:
    """Return a (H, W, 4) float32 base of one colour (3,) in [0, 255], detail shown at ``detail``."""
    base = np.empty((size[1], size[0], 4), np.float32)
    base[..., :3] = colour
    base[..., 3] = 255 * detail
    return base


def finish(base: np.ndarray) -> np.ndarray:
    """Return a float base as uint8."""
    return np.clip(base, 0, 255).round().astype(np.uint8)
