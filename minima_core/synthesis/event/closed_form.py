"""The published closed-form event picture: one global motion, one contrast threshold, no weights."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import cv2
import numpy as np
from pydantic import PositiveInt

from minima_core.synthesis._ranges import Positive, Rising
from minima_core.synthesis.base import Engine, Rendition, RGBColour, Source

RISE, FALL, PAPER = (0, 0, 255), (255, 0, 0), (255, 255, 255)  # RGB: blue, red, white


class ClosedForm(Engine):
    """Events of a camera that moves by a few pixels (spec/data-engine.md section 4, vectorised).

    Gray is OpenCV's BT.601 conversion of the RGB picture; the original lets the decoder convert, which truncates
    instead of rounding and so differs by at most one level.
    """

    class Params(Engine.Params):
        """``contrast``: range of the threshold in natural-log units; ``shift``: range of the motion in pixels."""

        contrast: Positive
        shift: Annotated[tuple[PositiveInt, PositiveInt], Rising]

    params: ClosedForm.Params
    reads: ClassVar[frozenset[str]] = frozenset()
    seeded: ClassVar[bool] = True
    palette: ClassVar[tuple[RGBColour, ...]] = (PAPER, RISE, FALL)
    encoding: ClassVar[Literal["png", "jpeg95"]] = "png"

    def _synthesise(self, source: Source, rng: np.random.Generator) -> Rendition:
        low, high = self.params.shift
        contrast = float(rng.uniform(*self.params.contrast))
        dx, dy = (int(rng.choice((-1, 1)) * rng.integers(low, high, endpoint=True)) for _ in range(2))
        gray = cv2.cvtColor(source.image, cv2.COLOR_RGB2GRAY)
        return Rendition(events(gray, contrast, dx, dy), {"contrast": contrast, "shift_x": dx, "shift_y": dy})


def events(gray: np.ndarray, contrast: float, dx: int, dy: int) -> np.ndarray:
    """Return the (H, W, 3) uint8 event picture of (H, W) uint8 ``gray``.

    Blue where log brightness at (x + dx, y + dy) exceeds that at (x, y) by more than ``contrast``, red where it
    falls short by more, white elsewhere and on the border of |dx|, |dy| pixels.
    """
    height, width = gray.shape
    picture = np.full((height, width, 3), 255, np.uint8)  # paper
    x, y = abs(dx), abs(dy)
    if width <= 2 * x or height <= 2 * y:
        return picture
    log = cv2.LUT(gray, np.log(np.arange(256, dtype=np.float32) + 1))
    change = log[y + dy : height - y + dy, x + dx : width - x + dx] - log[y : height - y, x : width - x]
    not_rise, not_fall = (np.uint8(255) * (~where).view(np.uint8) for where in (change > contrast, change < -contrast))
    picture[y : height - y, x : width - x] = cv2.merge([not_rise, not_rise & not_fall, not_fall])
    return picture
