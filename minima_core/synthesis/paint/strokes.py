"""Oil paintings: strokes laid from coarse to fine along the structure of the picture."""

from __future__ import annotations

from typing import ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field

from minima_core.synthesis._filters import gaussian, tangents
from minima_core.synthesis._ranges import Width
from minima_core.synthesis.base import Engine, Rendition, Source
from minima_core.synthesis.paint._brush import impasto, lay
from minima_core.synthesis.paint._placement import place


class Strokes(Engine):
    """A painter in Hertzmann's manner (1998): each smaller brush goes only where the canvas is still wrong.

    Strokes follow the smoothed structure tensor, end where the colour under them changes, and carry the bristle
    marks of a brush; a light from the upper left shows their relief.
    """

    class Params(Engine.Params):
        """``brushes``: widths in pixels of a 640 pixel wide picture, coarse to fine; ``tolerance``: mean colour error
        (0 to 1) below which a smaller brush adds nothing; ``jitter``: spread of the colours between strokes;
        ``relief``: how strongly the light shows the bristles."""

        brushes: tuple[Width, ...] = Field(min_length=1)
        tolerance: float = Field(gt=0, lt=1)
        jitter: float = Field(ge=0, lt=0.5)
        relief: float = Field(ge=0, lt=1)

    params: Strokes.Params
    reads: ClassVar[frozenset[str]] = frozenset()
    seeded: ClassVar[bool] = True
    encoding: ClassVar[Literal["png", "jpeg95"]] = "jpeg95"

    def _synthesise(self, source: Source, rng: np.random.Generator) -> Rendition:
        target = source.image.astype(np.float32) / 255
        scale = max(1.0, max(target.shape[:2]) / 640)
        canvas = gaussian(target, 2 * max(self.params.brushes) * scale)
        relief = np.zeros(target.shape[:2], np.float32)
        counts: list[int] = []
        for brush in sorted((b * scale for b in self.params.brushes), reverse=True):
            reference = gaussian(target, brush / 3)
            flow = _flow(reference, brush)
            first = not counts
            strokes = place(reference, canvas, flow, brush, tolerance=0.0 if first else self.params.tolerance, rng=rng)
            strokes = strokes.recoloured(self.params.jitter, rng)
            canvas, relief = lay(strokes, target.shape[:2], rng).over(canvas, relief)
            counts.append(len(strokes))
        lit = canvas + self.params.relief * impasto(relief)[..., None]
        picture = np.clip(lit * 255 + 0.5, 0, 255).astype(np.uint8)
        return Rendition(picture, {"strokes": counts})


def _flow(reference: np.ndarray, brush: float) -> np.ndarray:
    """Return (H, W, 2) directions for strokes of a brush, found on a copy that is as coarse as the brush allows."""
    height, width = reference.shape[:2]
    reduce = max(1, round(brush / 3))
    gray = cv2.cvtColor(reference, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(gray, (-(-width // reduce), -(-height // reduce)), interpolation=cv2.INTER_AREA)
    directions, _ = tangents(small, brush / reduce)
    return cv2.resize(directions, (width, height), interpolation=cv2.INTER_NEAREST)
