"""Both images of a sample moved in their squares: shifted, mirrored, turned and scaled, with all that lies on them.

RoMa's authors shift and mirror both images alike (spec/training.md section 5.1). Turning and scaling each image by
itself is an option of ours: the published trainings have none, and their matchers fail on turned images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch.nn import functional as F

from minima_core.config import Section
from minima_core.geometry.coords import to_grid
from minima_core.geometry.homography import warp_homography


class Augment(Section):
    """What is drawn for every sample, evenly within these bounds."""

    shift: Annotated[int, Field(ge=0)]  # most whole pixels of the square, along either axis; of both images alike
    flip: Annotated[float, Field(ge=0, le=1)]  # probability that both images are mirrored
    rotation: Annotated[float, Field(ge=0, le=180)]  # most degrees, of each image by itself
    scale: Annotated[float, Field(ge=1)]  # largest factor, either way, of each image by itself


@dataclass(frozen=True)
class Moves:
    """What was drawn for one sample.

    Attributes:
        flip: both images are mirrored.
        shift: of both images, x and y in pixels.
        rotation: of image 0 and of image 1, degrees.
        scale: likewise, factors.
    """

    flip: bool
    shift: tuple[int, int]
    rotation: tuple[float, float]
    scale: tuple[float, float]

    def homography(self, image: int, side: int) -> torch.Tensor:
        """Return the (3, 3) float64 homography that moves pixels of image 0 or 1, a square of ``side``."""
        middle = (side - 1) / 2
        c, s = (self.scale[image] * f(math.radians(self.rotation[image])) for f in (math.cos, math.sin))
        mirror = -1.0 if self.flip else 1.0
        to_middle = _affine(1, 0, 0, 1, -middle, -middle)
        turned = _affine(c, -s, s, c, 0, 0) @ _affine(mirror, 0, 0, 1, 0, 0)
        return _affine(1, 0, 0, 1, middle + self.shift[0], middle + self.shift[1]) @ turned @ to_middle


def draw(augment: Augment, generator: np.random.Generator) -> Moves:
    """Draw one sample's moves."""
    shift = generator.integers(-augment.shift, augment.shift, 2, endpoint=True)
    flip = generator.random() < augment.flip
    rotation = generator.uniform(-augment.rotation, augment.rotation, 2)
    scale = augment.scale ** generator.uniform(-1, 1, 2)
    x, y = (int(pixels) for pixels in shift)
    return Moves(bool(flip), (x, y), (float(rotation[0]), float(rotation[1])), (float(scale[0]), float(scale[1])))


def moved(values: torch.Tensor, A: torch.Tensor, *, mode: str) -> torch.Tensor:
    """Return (C, S, S) with what lay at a pixel now at that pixel under (3, 3) ``A``; 0 where nothing lay."""
    side = values.shape[-1]
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    pixels = torch.stack([x, y], -1).reshape(-1, 2).double()
    grid = to_grid(warp_homography(torch.linalg.inv(A), pixels), (side, side)).float().reshape(1, side, side, 2)
    return F.grid_sample(values[None], grid, mode=mode, padding_mode="zeros", align_corners=False)[0]


def _affine(a: float, b: float, c: float, d: float, x: float, y: float) -> torch.Tensor:
    return torch.tensor([[a, b, x], [c, d, y], [0, 0, 1]], dtype=torch.float64)
