"""A magnetic resonance picture whose tissues are the classes of the picture's gray."""

from __future__ import annotations

from typing import Annotated, ClassVar

import cv2
import numpy as np
from pydantic import Field

from minima_core.config import Section
from minima_core.synthesis._filters import gaussian
from minima_core.synthesis._ranges import NonNegative, Positive, Rising
from minima_core.synthesis._tissues import Count, assign, curve, spin_echoes
from minima_core.synthesis.base import Engine, Rendition, Source
from minima_core.synthesis.medical._scanner import rician, sensitivity

WHITE = 230  # level of the strongest signal; noise has room above it

Share = Annotated[float, Field(ge=0, le=0.95)]


class Times(Section):
    """A pulse sequence: ranges of its repetition and echo times in milliseconds."""

    repetition: Positive
    echo: Positive


class Contrast(Engine):
    """One gray class, one tissue: the picture as a drawn spin echo sequence would show it.

    Not anatomy: what is learnt from is the contrast. A tissue may be dark in T1 and bright in T2, so signal is no
    monotone function of gray (it turns at least twice), yet every border stays where it is.
    """

    class Params(Engine.Params):
        """``sequences``: of which one is drawn for each picture; ``tissues``: how many classes the gray is cut into;
        ``texture``: how much of the detail inside a class is kept; ``bias``: loss of sensitivity far from the coils;
        ``blur``: in pixels of a 640 pixel wide picture; ``noise``: of each channel, against the strongest signal."""

        sequences: Annotated[dict[str, Times], Field(min_length=1)]
        tissues: Annotated[tuple[Count, Count], Rising]
        texture: float = Field(ge=0, le=0.9)
        bias: Annotated[tuple[Share, Share], Rising]
        blur: Positive
        noise: NonNegative

    params: Contrast.Params
    reads: ClassVar[frozenset[str]] = frozenset()
    seeded: ClassVar[bool] = True

    def _synthesise(self, source: Source, rng: np.random.Generator) -> Rendition:
        params = self.params
        sequence = str(rng.choice(list(params.sequences)))
        times = params.sequences[sequence]
        repetition, echo = (round(float(rng.uniform(*span)), 1) for span in (times.repetition, times.echo))
        count = int(rng.integers(*params.tissues, endpoint=True))
        bias, blur, noise = (round(float(rng.uniform(*span)), 4) for span in (params.bias, params.blur, params.noise))
        tissues, signals = assign(count, spin_echoes(repetition, echo), rng)
        gray = cv2.cvtColor(source.image, cv2.COLOR_RGB2GRAY)
        signal = cv2.LUT(gray, curve(gray, signals, params.texture)) * sensitivity(gray.shape, bias, rng)
        seen = rician(gaussian(signal, blur * max(1.0, max(gray.shape) / 640)), noise, rng)
        picture = np.clip(WHITE * seen + 0.5, 0, 255).astype(np.uint8)
        drawn = {
            "sequence": sequence,
            "repetition": repetition,
            "echo": echo,
            "tissues": tissues,
            "bias": bias,
            "blur": blur,
            "noise": noise,
        }
        return Rendition(cv2.merge([picture] * 3), drawn)
