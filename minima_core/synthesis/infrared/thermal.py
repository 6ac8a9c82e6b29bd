"""A thermal camera: what surfaces emit and reflect in a drawn weather, seen through air, lens and sensor."""

from __future__ import annotations

from typing import Annotated, ClassVar

import cv2
import numpy as np
from pydantic import Field

from minima_core.data.materials import Material
from minima_core.errors import DataError, redo
from minima_core.synthesis._filters import gaussian, guided
from minima_core.synthesis._ranges import PICTURE_WIDTH, NonNegative, Range, Rising, Shares
from minima_core.synthesis.base import Engine, Rendition, Source
from minima_core.synthesis.infrared._regions import objects_of_materials, objects_of_picture
from minima_core.synthesis.infrared._sensor import expose
from minima_core.synthesis.infrared._surfaces import Surfaces, Weather, surfaces_of_classes, surfaces_of_materials

Lost = Annotated[float, Field(ge=0, lt=1)]  # of everything nothing would be left


class Thermal(Engine):
    """Apparent temperature, not brightness: white-hot gray that no function of the RGB picture's gray can give.

    Where the data set names materials, each has its temperature by day and night and its emissivity. Elsewhere the
    picture is cut into objects whose look decides only *which* objects are alike; their temperatures are drawn. Fine
    texture enters with a drawn sign, because a dark stripe may be the warmer one (it absorbs more sun).
    """

    class Params(Engine.Params):
        """``air``: air temperature in degrees Celsius; ``sun``: 0 night to 1 full sun; ``detail``: kelvin that a full
        contrast edge inside an object may add; ``spread``: kelvin between objects of one material; ``haze``: share of
        contrast lost over 100 m; ``blur``: lens in pixels of a 640 pixel wide picture; ``noise``: sensor in kelvin;
        ``equalise``: share of histogram equalisation in the gain control; ``classes`` and ``cell``: how many kinds of
        surface, cut at which size, where materials are unknown."""

        air: Range
        sun: Shares
        detail: float = Field(ge=0)
        spread: float = Field(ge=0)
        haze: Annotated[tuple[Lost, Lost], Rising]
        blur: NonNegative
        noise: NonNegative
        equalise: Shares
        classes: int = Field(ge=2)
        cell: int = Field(ge=4, le=PICTURE_WIDTH)

    params: Thermal.Params
    seeded: ClassVar[bool] = True

    def _synthesise(self, source: Source, rng: np.random.Generator) -> Rendition:
        params = self.params
        weather = Weather.draw(rng, air=params.air, sun=params.sun)
        gray = cv2.cvtColor(source.image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
        known = source.material is not None and bool(source.material.any())
        surfaces, objects = self._surfaces(source, weather, rng, known=known)
        emitted = self._temperature(gray, surfaces, objects, weather, rng, exact=known)
        if source.depth is not None:
            loss = -np.log1p(-float(rng.uniform(*params.haze))) / 100
            far = np.where(source.depth > 0, np.exp(-loss * source.depth), 1).astype(np.float32)
            emitted = weather.air + (emitted - weather.air) * far
        scale = max(1.0, max(gray.shape) / 640)
        blur, noise, equalise = (float(rng.uniform(*r)) for r in (params.blur, params.noise, params.equalise))
        picture = expose(emitted, blur=blur * scale, noise=noise, equalise=equalise, rng=rng)
        drawn = {
            "materials": known,
            "air": round(weather.air, 2),
            "sun": round(weather.sun, 3),
            "sky": round(weather.sky, 2),
            "blur": round(blur, 3),
            "noise": round(noise, 4),
            "equalise": round(equalise, 3),
        }
        return Rendition(cv2.merge([picture] * 3), drawn)

    def _surfaces(
        self, source: Source, weather: Weather, rng: np.random.Generator, *, known: bool
    ) -> tuple[Surfaces, np.ndarray]:
        """Return the properties of every surface class in sight and the (H, W) int32 map of objects."""
        if known and source.material is not None:
            objects, kinds = objects_of_materials(source.material)
            if kinds.max() > max(Material):
                raise DataError(
                    f"the material map of {source.name} holds id {kinds.max()}, {max(Material)} is the highest known; "
                    f"make the raw scenes again with {redo('download')}"
                )
            return surfaces_of_materials(weather, rng).of(kinds), objects
        objects, kinds, looks = objects_of_picture(source.image, self.params.classes, self.params.cell, rng)
        return surfaces_of_classes(looks, weather, rng).of(kinds), objects

    def _temperature(
        self,
        gray: np.ndarray,
        surfaces: Surfaces,
        objects: np.ndarray,
        weather: Weather,
        rng: np.random.Generator,
        *,
        exact: bool,
    ) -> np.ndarray:
        """Return (H, W) float32 apparent temperature in degrees Celsius."""
        count = len(surfaces.warmth)
        offset = rng.normal(0, self.params.spread, count).astype(np.float32) * surfaces.varies
        smooth = gaussian(gray, 4.0)
        usual = _mean_by(smooth, objects, count)
        lit = np.clip(smooth / np.maximum(usual.take(objects), 0.05), 0.4, 1.6)  # shade inside one object
        kelvin = (surfaces.warmth + offset).take(objects) + weather.sun * surfaces.heating.take(objects) * lit
        kelvin += self.params.detail * surfaces.sign.take(objects) * (gray - smooth)
        emissivity = surfaces.emissivity.take(objects)
        height = gray.shape[0]
        up = np.linspace(1, 0, height, dtype=np.float32)[:, None]  # the sky is coldest overhead
        reflected = weather.sky + (weather.air - weather.sky) * (1 - 0.6 * up)
        body = emissivity * kelvin + (1 - emissivity) * reflected
        sky = weather.sky + (weather.air - weather.sky) * 0.5 * (1 - up) + 6.0 * (smooth - 0.5) * weather.cloud
        whole = np.where(surfaces.is_sky.take(objects), sky, body).astype(np.float32)
        return whole if exact else guided(whole, gray, 4, 5e-4)  # borders of guessed objects follow the picture's edges


def _mean_by(values: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Return the (count,) float32 mean of ``values`` in each label."""
    flat = labels.ravel()
    total = np.bincount(flat, values.ravel(), minlength=count)
    return (total / np.maximum(np.bincount(flat, minlength=count), 1)).astype(np.float32)
