"""Types of settings that several engines share; most draw from two numbers, the lower first."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import AfterValidator, Field, NonNegativeFloat, PositiveFloat


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if not -math.inf < ends[0] <= ends[1] < math.inf:
        raise ValueError("give two numbers in rising order")
    return ends


Rising = AfterValidator(_rising)
PICTURE_WIDTH = 640  # pixels of a picture that widths in settings are meant for: nothing is wider

Share = Annotated[float, Field(ge=0, le=1)]
Range = Annotated[tuple[float, float], Rising]
Positive = Annotated[tuple[PositiveFloat, PositiveFloat], Rising]
NonNegative = Annotated[tuple[NonNegativeFloat, NonNegativeFloat], Rising]
Shares = Annotated[tuple[Share, Share], Rising]
Width = Annotated[float, Field(gt=0, le=PICTURE_WIDTH)]
Widths = Annotated[tuple[Width, Width], Rising]
WholeWidth = Annotated[int, Field(ge=1, le=PICTURE_WIDTH)]
