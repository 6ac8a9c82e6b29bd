"""A small town: a square with buildings round it, trees, vehicles, stalls and clutter on it, under one sun."""

from __future__ import annotations

import numpy as np

from minima_core.data.datasets._world import painters as paint
from minima_core.data.datasets._world.furniture import add_furniture
from minima_core.data.datasets._world.ground import add_ground
from minima_core.data.datasets._world.houses import add_houses, add_skyline
from minima_core.data.datasets._world.photographs import WorldName
from minima_core.data.datasets._world.scenery import Town
from minima_core.data.datasets._world.textures import detail_tiles
from minima_core.random import rng


def build_town(seed: int, name: str, world: WorldName) -> Town:
    """Return the town ``name``; it depends on its arguments only."""
    random = rng(seed, name, "layout")
    azimuth, elevation = random.uniform(0, 2 * np.pi), np.radians(random.uniform(28, 58))
    sun = np.array([np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)])
    half = (random.uniform(11, 17), random.uniform(9, 14))
    town = Town(half, sun, detail_tiles(world, seed), paint.panorama(rng(seed, name, "sky")))
    add_houses(town, rng(seed, name, "buildings"), world)
    add_skyline(town, rng(seed, name, "skyline"), world)
    add_furniture(town, rng(seed, name, "furniture"), world)
    add_ground(town, rng(seed, name, "ground"), world)
    return town
