"""How much surfaces scatter back to the radar, in dB: by material, by tone, by roughness."""

from __future__ import annotations

import cv2
import numpy as np

from minima_core.data.materials import Material
from minima_core.errors import DataError, redo
from minima_core.synthesis._filters import gaussian
from minima_core.synthesis.base import Source

MEAN = -10.0  # dB of land in general; also of what has no material
SPREAD = 2.0  # dB by which a material differs from picture to picture
INSIDE = 0.4  # share of the tone's waves that is left inside a known material
LIMIT = 2.5  # doublings of texture, each way, beyond which roughness makes no difference
FAINT = 0.01  # texture, in units of log brightness, below which a surface counts as smooth

# normalised radar cross-section at about 5 GHz and 40 degrees: orders of magnitude as in Ulaby and Dobson, Handbook of
# Radar Scattering Statistics for Terrain, 1989; what is smooth mirrors the pulse away, metal returns it
_TABLE = {
    Material.UNKNOWN: MEAN,
    Material.SKY: -60.0,
    Material.GROUND: -13.0,
    Material.VEGETATION: -9.0,
    Material.ASPHALT: -19.0,
    Material.CONCRETE: -14.0,
    Material.BRICK: -9.0,
    Material.STONE: -11.0,
    Material.GLASS: -20.0,
    Material.METAL: -1.0,
    Material.WOOD: -12.0,
    Material.WATER: -23.0,
    Material.PLASTIC: -15.0,
    Material.FABRIC: -16.0,
    Material.PERSON: -7.0,
    Material.VEHICLE: -3.0,
    Material.ENGINE: -2.0,
    Material.LAMP: -12.0,
}


def tone(gray: np.ndarray, *, waves: float, phase: float, swing: float) -> np.ndarray:
    """Return (H, W) float32 dB: ``waves`` cosines of amplitude ``swing`` around the mean, over the ranks of uint8 gray.

    ``phase`` is in waves. Ranks, not values: the waves reach the pixels of a dull picture too.
    """
    ranks = np.arange(256) / 255
    table = MEAN + swing * np.cos(2 * np.pi * (waves * ranks + phase))
    return cv2.LUT(cv2.equalizeHist(gray), table.astype(np.float32))


def of_materials(source: Source, tones: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return (H, W) float32 dB of the source's materials, each drawn around its own level, with a rest of ``tones``.

    Raises:
        DataError: if the material map holds an id that is not known.
    """
    assert source.material is not None
    highest = int(source.material.max())
    if highest > max(Material):
        raise DataError(
            f"the material map of {source.name} holds id {highest}, {max(Material)} is the highest known; "
            f"make the raw scenes again with {redo('download')}"
        )
    levels = np.array([_TABLE[material] for material in Material]) + rng.normal(0, SPREAD, len(Material))
    return levels.astype(np.float32).take(source.material) + np.float32(INSIDE) * (tones - np.float32(MEAN))


def roughness(gray: np.ndarray, sigma: float) -> np.ndarray:
    """Return (H, W) float32 doublings of the texture in uint8 gray, against the picture's median.

    Texture is the deviation of log brightness within ``sigma`` pixels; edges count as texture, as corners of buildings
    and banks do that return the pulse.
    """
    log = cv2.LUT(gray, np.log(np.arange(256) / 255 + 0.05).astype(np.float32))
    mean = gaussian(log, sigma)
    texture = np.sqrt(np.maximum(gaussian(log * log, sigma) - mean * mean, 0)) + np.float32(FAINT)
    doublings = cv2.log(texture / np.median(texture[::2, ::2])) / np.float32(np.log(2))
    return np.clip(doublings, -LIMIT, LIMIT)
