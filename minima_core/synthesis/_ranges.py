"""Types of settings that several engines draw from: two numbers, the lower first."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, NonNegativeFloat, PositiveFloat


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError("give two numbers in rising order")
    return ends


Rising = AfterValidator(_rising)
Range = Annotated[tuple[float, float], Rising]
Positive = Annotated[tuple[PositiveFloat, PositiveFloat], Rising]
NonNegative = Annotated[tuple[NonNegativeFloat, NonNegativeFloat], Rising]
