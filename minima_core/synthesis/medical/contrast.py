"""A magnetic resonance picture whose tissues are the classes of the picture's gray."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import product
from typing import Annotated, ClassVar, Self

import cv2
import numpy as np
from pydantic import Field, model_validator

from minima_core.config import Section
from minima_core.synthesis._filters import gaussian
from minima_core.synthesis._ranges import NonNegative, Range, Rising, Widths
from minima_core.synthesis._tissues import Count, signal, spin_echoes, tomogram
from minima_core.synthesis.base import Engine, Rendition, Source
from minima_core.synthesis.medical._scanner import rician, sensitivity

DIGITS = 1  # after the point, of times and Hounsfield units
FAINTEST = 0.01  # difference of signals without which a picture shows nothing
WHITE = 230  # level of the strongest signal; noise has room above it

Share = Annotated[float, Field(ge=0, le=0.95)]
Milliseconds = Annotated[float, Field(ge=1)]
Hounsfield = Annotated[float, Field(ge=1)]


class Sequence(Section, ABC):
    """What a scanner does for one picture: the ranges of its numbers, drawn to ``DIGITS``."""

    @abstractmethod
    def signals(self, drawn: Mapping[str, float]) -> dict[str, float]:
        """Return what is seen of every tissue."""

    @model_validator(mode="after")
    def _shows_something(self) -> Self:
        spans = dict(self)
        for ends in product(*spans.values()):
            drawn = {name: round(end, DIGITS) for name, end in zip(spans, ends, strict=True)}
            seen = self.signals(drawn).values()
            if max(seen) - min(seen) < FAINTEST:
                at = ", ".join(f"{name} {value:g}" for name, value in drawn.items())
                raise ValueError(f"with {at} all tissues look alike")
        return self


class Times(Sequence):
    """A pulse sequence of magnetic resonance: ranges of its repetition and echo times in milliseconds."""

    repetition: Annotated[tuple[Milliseconds, Milliseconds], Rising]
    echo: Annotated[tuple[Milliseconds, Milliseconds], Rising]

    def signals(self, drawn: Mapping[str, float]) -> dict[str, float]:
        """Return what is seen of every tissue."""
        return spin_echoes(**drawn)


class Window(Sequence):
    """A window on a tomogram of X-rays: ranges of its middle and width in Hounsfield units."""

    level: Range
    width: Annotated[tuple[Hounsfield, Hounsfield], Rising]

    def signals(self, drawn: Mapping[str, float]) -> dict[str, float]:
        """Return what is seen of every tissue."""
        return tomogram(**drawn)


class Contrast(Engine):
    """One gray class, one tissue: the picture as a drawn spin echo sequence, or window of a tomogram, would show it.

    Of a photograph this is no anatomy: what is learnt from is the contrast. A tissue may be dark in T1 and bright in
    T2, so signal is no monotone function of gray (it turns at least twice), yet every border stays where it is. Where
    the data set names tissues, they are the ones that are shown.
    """

    class Params(Engine.Params):
        """``sequences``: of which one is drawn for each picture; ``tissues``: how many classes the gray is cut into;
        ``texture``: how much of the detail inside a class is kept; ``bias``: loss of sensitivity far from the coils;
        ``blur``: in pixels of a 640 pixel wide picture; ``noise``: of each channel, against the strongest signal."""

        sequences: Annotated[dict[str, Times | Window], Field(min_length=1)]
        tissues: Annotated[tuple[Count, Count], Rising]
        texture: float = Field(ge=0, le=0.9)
        bias: Annotated[tuple[Share, Share], Rising]
        blur: Widths
        noise: NonNegative

    params: Contrast.Params
    reads: ClassVar[frozenset[str]] = frozenset({"tissue"})
    seeded: ClassVar[bool] = True

    def _synthesise(self, source: Source, rng: np.random.Generator) -> Rendition:
        params = self.params
        sequence = str(rng.choice(list(params.sequences)))
        times = params.sequences[sequence]
        settings = {name: round(float(rng.uniform(*span)), DIGITS) for name, span in times}
        count = int(rng.integers(*params.tissues, endpoint=True))
        bias, blur, noise = (round(float(rng.uniform(*span)), 4) for span in (params.bias, params.blur, params.noise))
        gray = cv2.cvtColor(source.image, cv2.COLOR_RGB2GRAY)
        seen, tissues = signal(gray, source.tissue, times.signals(settings), count, params.texture, rng)
        width = blur * max(1.0, max(gray.shape) / 640)
        if isinstance(times, Times):
            seen = rician(gaussian(seen * sensitivity(gray.shape, bias, rng), width), noise, rng)
        else:  # no coil: even, and noise of the sum that a reconstruction is
            bias = 0.0
            seen = gaussian(seen, width) + np.float32(noise) * rng.standard_normal(gray.shape, np.float32)
        picture = np.clip(WHITE * seen + 0.5, 0, 255).astype(np.uint8)
        drawn = {
            "sequence": sequence,
            **settings,
            "tissues": tissues,
            "bias": bias,
            "blur": blur,
            "noise": noise,
        }
        return Rendition(cv2.merge([picture] * 3), drawn)
