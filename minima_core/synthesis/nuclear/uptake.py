"""An emission picture (PET, SPECT): how much of a tracer each tissue takes up, through the scanner's wide blur."""

from __future__ import annotations

from functools import cache
from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field

from minima_core.synthesis._filters import gaussian
from minima_core.synthesis._ranges import NonNegative, Rising, Widths
from minima_core.synthesis._tissues import UPTAKE, Count, signal
from minima_core.synthesis.base import Engine, Rendition, Source

FWHM = 2.3548  # full width at half maximum of a Gaussian, in its standard deviations
COLOURS = {"hot": "hot", "iron": "inferno", "metal": "CMRmap", "spectrum": "jet", "spectral": "nipy_spectral"}

Palette = Literal["gray", "inverted", "hot", "iron", "metal", "spectrum", "spectral"]


class Uptake(Engine):
    """One gray class, one tissue: the picture as an emission scanner would show it, a drawn palette laid over it.

    As with ``medical``, what is learnt from is the contrast: activity is no monotone function of gray. Borders stay
    where they are, but the scanner resolves none finer than its resolution, and its noise is as coarse. Where the data
    set names tissues, each has the activity that it has of fluorodeoxyglucose.
    """

    class Params(Engine.Params):
        """``tissues``: how many classes the gray is cut into; ``texture``: how much of the detail inside a class is
        kept; ``resolution``: full width of a point's picture at half its height, in pixels of a 640 pixel wide one;
        ``noise``: of the brightest activity, against it; ``palettes``: of which one is drawn for each picture."""

        tissues: Annotated[tuple[Count, Count], Rising]
        texture: float = Field(ge=0, le=0.9)
        resolution: Widths
        noise: NonNegative
        palettes: Annotated[list[Palette], Field(min_length=1)]

    params: Uptake.Params
    reads: ClassVar[frozenset[str]] = frozenset({"tissue"})
    seeded: ClassVar[bool] = True

    def _synthesise(self, source: Source, rng: np.random.Generator) -> Rendition:
        params = self.params
        palette = str(rng.choice(params.palettes))
        count = int(rng.integers(*params.tissues, endpoint=True))
        resolution, noise = (round(float(rng.uniform(*span)), 4) for span in (params.resolution, params.noise))
        gray = cv2.cvtColor(source.image, cv2.COLOR_RGB2GRAY)
        activity, tissues = signal(gray, source.tissue, UPTAKE, count, params.texture, rng)
        sigma = resolution / FWHM * max(1.0, max(gray.shape) / 640)
        seen = gaussian(activity, sigma)
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
        return colours(COLOURS[palette])[activity]
    return cv2.merge([255 - activity if palette == "inverted" else activity] * 3)


@cache
def colours(name: str) -> np.ndarray:
    """Return the (256, 3) uint8 RGB colours of a map of matplotlib's."""
    from matplotlib import colormaps

    return colormaps[name](np.arange(256), bytes=True)[:, :3].copy()
