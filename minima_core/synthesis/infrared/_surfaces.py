"""What surfaces are like in the thermal band: temperature by night, heating by the sun, emissivity."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from minima_core.data.materials import Material

BODY = 31.0  # degrees Celsius of clothed people

# Kelvin above the air at night, kelvin more in full sun, emissivity at 8 to 14 micrometres. Round numbers of the order
# that engineering tables give (paint and masonry 0.9 and more, bare metal far less); they are drawn around, not fitted.
_TABLE: dict[Material, tuple[float, float, float]] = {
    Material.UNKNOWN: (0.0, 8.0, 0.93),
    Material.SKY: (0.0, 0.0, 1.0),
    Material.GROUND: (-1.0, 11.0, 0.93),
    Material.VEGETATION: (-1.0, 3.0, 0.97),
    Material.ASPHALT: (4.0, 20.0, 0.95),
    Material.CONCRETE: (2.0, 13.0, 0.93),
    Material.BRICK: (3.0, 16.0, 0.93),
    Material.STONE: (2.0, 10.0, 0.92),
    Material.GLASS: (1.0, 2.0, 0.82),
    Material.METAL: (-1.0, 14.0, 0.35),
    Material.WOOD: (0.0, 12.0, 0.90),
    Material.WATER: (4.0, -5.0, 0.96),
    Material.PLASTIC: (-1.0, 14.0, 0.91),
    Material.FABRIC: (-1.0, 15.0, 0.89),
    Material.PERSON: (0.0, 0.0, 0.97),
    Material.VEHICLE: (-1.0, 18.0, 0.80),
    Material.ENGINE: (24.0, 18.0, 0.90),
    Material.LAMP: (18.0, 16.0, 0.92),
}


@dataclass(frozen=True)
class Weather:
    """Temperatures in degrees Celsius; ``sun`` and ``cloud`` from 0 to 1."""

    air: float
    sky: float
    sun: float
    cloud: float

    @classmethod
    def draw(cls, rng: np.random.Generator, *, air: tuple[float, float], sun: tuple[float, float]) -> Weather:
        """Return the weather of one picture; a clear sky is far colder than the air, an overcast one is not."""
        warmth, light, cloud = float(rng.uniform(*air)), float(rng.uniform(*sun)), float(rng.uniform())
        return cls(warmth, warmth - 12 - 33 * (1 - cloud), light * (1 - 0.6 * cloud), cloud)


@dataclass(frozen=True)
class Surfaces:
    """Arrays (N,) over surface classes, or over objects.

    Attributes:
        warmth: float32 degrees Celsius without sun.
        heating: float32 kelvin that full sun adds.
        emissivity: float32.
        sign: float32 in [-1, 1]: how a brighter texture inside the object changes its temperature.
        varies: float32: how much objects of the class differ from each other.
        is_sky: bool.
    """

    warmth: np.ndarray
    heating: np.ndarray
    emissivity: np.ndarray
    sign: np.ndarray
    varies: np.ndarray
    is_sky: np.ndarray

    def of(self, kinds: np.ndarray) -> Surfaces:
        """Return the surfaces of objects, given the class of each."""
        return Surfaces(*(getattr(self, field.name)[kinds] for field in fields(self)))


def _float32(*arrays: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    first, second, third, fourth, fifth = (array.astype(np.float32) for array in arrays)
    return first, second, third, fourth, fifth


def surfaces_of_materials(weather: Weather, rng: np.random.Generator) -> Surfaces:
    """Return the classes of the material ids, each drawn around its place in the table."""
    count = max(_TABLE) + 1
    night, heating, emissivity = np.array([_TABLE[Material(k)] for k in range(count)], np.float32).T
    warmth = weather.air + (1 - 0.5 * weather.sun) * night + rng.normal(0, 1.5, count)
    warmth[Material.PERSON] = BODY + rng.normal(0, 1.5)
    heating = heating * rng.uniform(0.7, 1.3, count)
    sign = np.where(rng.random(count) < 0.3 + 0.5 * weather.sun, -1, 1) * rng.uniform(0.4, 1, count)
    sign[[Material.GLASS, Material.WATER]] *= 0.1  # what they mirror in the visible is not there
    varies = np.ones(count)
    varies[Material.SKY] = 0
    emissivity = np.clip(emissivity + rng.normal(0, 0.02, count), 0.1, 1.0)
    is_sky = np.arange(count) == Material.SKY
    return Surfaces(*_float32(warmth, heating, emissivity, sign, varies), is_sky)


def surfaces_of_classes(looks: np.ndarray, weather: Weather, rng: np.random.Generator) -> Surfaces:
    """Return classes for (N, 5) ``looks`` (L, a, b in [0, 1] around 0.5, texture, height in the picture from the top).

    Smooth, bright or blue and high up is taken for sky; everything else draws its temperature apart from its look.
    """
    count = len(looks)
    light, red_green, blue_yellow, texture, top = looks.T
    is_sky = (texture < 0.02) & (top < 0.4) & (light > 0.45) & ((blue_yellow < 0.5) | (light > 0.7))
    leaf = (red_green < 0.47) & (blue_yellow > 0.53)
    order = rng.permutation(count)  # evenly spaced, so that no two classes melt into one
    warmth = weather.air + 16 * ((order + rng.uniform(0, 1, count)) / count - 0.45)
    warmth[leaf] = weather.air + rng.normal(0, 1.5, leaf.sum())
    heating = rng.uniform(2, 12, count)
    sign = np.where(rng.random(count) < 0.5, -1, 1) * rng.uniform(0.4, 1, count)
    emissivity = rng.uniform(0.85, 0.98, count)
    varies = np.where(is_sky, 0, 1)
    return Surfaces(*_float32(warmth, heating, emissivity, sign, varies), is_sky)
