"""An emission picture (PET, SPECT): how much of a tracer each tissue takes up, through the scanner's wide blur."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field

from minima_core.synthesis._filters import gaussian
from minima_core.synthesis._ranges import NonNegative, Positive, Rising
from minima_core.synthesis._tissues import UPTAKE, Count, assign, curve
from minima_core.synthesis.base import Engine, Rendition, Source

FWHM = 2.3548  # full width at half maximum of a Gaussian, in its standard deviations
COLOURS = {"hot": cv2.COLORMAP_HOT, "spectrum": cv2.COLORMAP_JET}

Palette = Literal["gray", "inverted", "hot", "spectrum"]


class Uptake(Engine):
    """One gray class, one tissue: the picture as an emission scanner would show it, a drawn palette laid over it.

    As with ``medical``, what is learnt from is the contrast: activity is no monotone function of gray. Borders stay
    where they are, but the scanner resolves none finer than its resolution, and its noise is as coarse.
    """

    class Params(Engine.Params):
        """``tissues``: how many classes the gray is cut into; ``texture``: how much of the detail inside a class is
        kept; ``resolution``: full width of a point's picture at half its height, in pixels of a 640 pixel wide one;
        ``noise``: of the brightest activity, against it; ``palettes``: of which one is drawn for each picture."""

        tissues: Annotated[tuple[Count, Count], Rising]
        texture: float = Field(ge=0, le=0.9)
        resolution: Positive
        noise: NonNegative
        palettes: Annotated[list[Palette], Field(min_length=1)]

    params: Uptake.Params
    reads: ClassVar[frozenset[str]] = frozenset()
    seeded: ClassVar[bool] = True

    def _synthesise(self, source: Source, rng: np.random.Generator) -> Rendition:
        params = self.params
        palette = str(rng.choice(params.palettes))
        count = int(rng.integers(*params.tissues, endpoint=True))
        resolution, noise = (round(float(rng.uniform(*span)), 4) for span in (params.resolution, params.noise))
        tissues, activity = assign(count, UPTAKE, rng)
        gray = cv2.cvtColor(source.image, cv2.COLOR_RGB2GRAY)
        sigma = resolution / FWHM * max(1.0, max(gray.shape) / 640)
        seen = gaussian(cv2.LUT(gray, curve(gray, activity, params.texture)), sigma)
        seen = np.clip(seen + noise * np.sqrt(np.maximum(seen, 0)) * grain(gray.shape, sigma, rng), 0, 1)
        picture = coloured((255 * seen + 0.5).astype(np.uint8), palette)
        return Rendition(
            picture,
            {"palette": palette, "tissues": tissues, "resolution": resolution, "noise": noise},
        )


def grain(shape: tuple[int, ...], sigma: float, rng: np.random.Generator) -> np.ndarray:
    """Return (H, W) float32 normal noise of unit variance that the scanner's own blur has smoothed.

    Counts scatter as the square root of their number, which ``Uptake`` multiplies this with (Poisson).
    """
    smooth = gaussian(rng.standard_normal(shape, np.float32), sigma)
    return smooth / max(float(smooth.std()), 1e-6)


def coloured(activity: np.ndarray, palette: str) -> np.ndarray:
    """Return (H, W, 3) uint8 RGB of (H, W) uint8 activity in a palette."""
    if palette in COLOURS:
        return cv2.cvtColor(cv2.applyColorMap(activity, COLOURS[palette]), cv2.COLOR_BGR2RGB)
    return cv2.merge([255 - activity if palette == "inverted" else activity] * 3)
