"""An airborne radar that looks at the scene from the side, drawn in the picture's own pixels."""

from __future__ import annotations

from typing import Annotated, ClassVar

import cv2
import numpy as np
from pydantic import Field

from minima_core.synthesis._filters import gaussian
from minima_core.synthesis._ranges import Positive, Range, Rising, Widths
from minima_core.synthesis.base import Engine, Rendition, Source
from minima_core.synthesis.sar._backscatter import of_materials, roughness, tone
from minima_core.synthesis.sar._receiver import compress, power, speckle
from minima_core.synthesis.sar._relief import illuminate, relief_of

TOP = 99.7  # percentile of the received power that is drawn white

Slant = Annotated[float, Field(ge=5, le=85)]
Level = Annotated[float, Field(ge=-100, le=100)]  # dB
Decibels = Annotated[float, Field(ge=1, le=100)]
Looks = Annotated[float, Field(ge=0.1, le=1000)]


class Radar(Engine):
    """Multi-look intensity in decibels, gray.

    How much a surface scatters back comes from its material where the data set names it, else from a drawn wave over
    the ranks of the picture's gray, so that no monotone function of gray gives it; rough texture scatters more. Where
    depth is known it is taken as a relief that the camera sees from above and the radar from the side: slopes that face
    the radar are brighter, what lies behind a rise is in shadow, and what shares its range with something else is
    brighter by that. A real radar would also *move* what is high towards itself; here every pixel stays where the
    picture has it, because the picture's depth and poses are the ground truth of this image too.
    """

    class Params(Engine.Params):
        """``look``: direction in which the radar looks, degrees from x to y in the picture; ``incidence``: degrees from
        the vertical; ``relief``: height of the whole depth range as a share of the longer side; ``tone``: how many
        waves of backscatter the gray range holds; ``swing``: their amplitude in dB; ``roughness``: dB for each doubling
        of texture; ``looks``: how many independent images are averaged; ``resolution``: width of the impulse response
        in pixels of a 640 pixel wide picture; ``noise``: the receiver's own in dB; ``dynamic``: dB from black to
        white."""

        look: Range
        incidence: Annotated[tuple[Slant, Slant], Rising]
        relief: float = Field(ge=0)
        tone: Positive
        swing: float = Field(ge=0, le=100)
        roughness: float = Field(ge=0, le=100)
        looks: Annotated[tuple[Looks, Looks], Rising]
        resolution: Widths
        noise: Annotated[tuple[Level, Level], Rising]
        dynamic: Annotated[tuple[Decibels, Decibels], Rising]

    params: Radar.Params
    seeded: ClassVar[bool] = True

    def _synthesise(self, source: Source, rng: np.random.Generator) -> Rendition:
        names = ("look", "incidence", "tone", "looks", "resolution", "noise", "dynamic")
        drawn = {name: round(float(rng.uniform(*getattr(self.params, name))), 3) for name in names}
        drawn["phase"] = round(float(rng.uniform()), 3)
        scattered, materials = self._scattered(source, drawn, rng)
        width = drawn["resolution"] * max(1.0, max(scattered.shape) / 640)
        seen = gaussian(scattered, width) + power(np.float32(drawn["noise"]))
        seen *= speckle(seen.shape, looks=drawn["looks"], width=width, rng=rng)
        top = round(float(10 * np.log10(np.percentile(seen[::2, ::2], TOP))), 3)
        picture = compress(seen, top=top, dynamic=drawn["dynamic"])
        return Rendition(cv2.merge([picture] * 3), {**drawn, "top": top, "materials": materials})

    def _scattered(self, source: Source, drawn: dict[str, float], rng: np.random.Generator) -> tuple[np.ndarray, bool]:
        """Return (H, W) float32 power that the scene sends back, and whether its materials are known."""
        params = self.params
        gray = cv2.cvtColor(source.image, cv2.COLOR_RGB2GRAY)
        decibel = tone(gray, waves=drawn["tone"], phase=drawn["phase"], swing=params.swing)
        materials = source.material is not None and bool(source.material.any())
        if materials:
            decibel = of_materials(source, decibel, rng)
        decibel += params.roughness * roughness(gray, 1.5 * max(1.0, max(gray.shape) / 640))
        scattered = power(decibel)
        if source.depth is not None and source.depth.any():
            height = relief_of(source.depth, params.relief * max(gray.shape))
            known = source.depth > 0
            scattered *= illuminate(height, known, look=drawn["look"], incidence=drawn["incidence"])
        return scattered, materials
