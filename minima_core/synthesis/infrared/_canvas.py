"""How a picture of any size is brought onto the canvas that the latent editor works on, and back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

BIG = 900  # a longer side than this is big enough to be worked on as it is
SIDE = 1024  # of the square that other pictures are worked on in; the size the networks were trained at


@dataclass(frozen=True)
class Canvas:
    """Where a picture lies: ``content`` is its (width, height) at the top left of ``size``, black beside and below."""

    content: tuple[int, int]
    size: tuple[int, int]


def plan(width: int, height: int, *, native: bool, max_side: int, multiple: int = 8) -> Canvas:
    """Return the canvas of a picture (spec/data-engine.md section 2.3).

    Big pictures keep their size and are padded to a ``multiple``; one with a longer side than ``max_side`` is brought
    down to that first, which the original does not do: its memory grows without a bound. Others, and all where
    ``native`` is off, are brought to a long side of 1024 in a square of 1024.
    """
    long = max(width, height)
    if native and long > BIG:
        content = (width, height) if long <= max_side else _fit(width, height, max_side)
        return Canvas(content, (-(-content[0] // multiple) * multiple, -(-content[1] // multiple) * multiple))
    return Canvas(_fit(width, height, SIDE), (SIDE, SIDE))


def lay(image: np.ndarray, canvas: Canvas) -> torch.Tensor:
    """Return (H, W, 3) uint8 on its canvas, (3, h, w) float32 in [-1, 1]; a change of size is Lanczos."""
    height, width = image.shape[:2]
    if canvas.content != (width, height):
        image = np.asarray(Image.fromarray(image).resize(canvas.content, Image.Resampling.LANCZOS))
    laid = np.zeros((canvas.size[1], canvas.size[0], 3), np.uint8)
    laid[: canvas.content[1], : canvas.content[0]] = image
    return torch.from_numpy(laid).permute(2, 0, 1).float() / 127.5 - 1


def lift(picture: torch.Tensor, canvas: Canvas, width: int, height: int) -> torch.Tensor:
    """Return the content of (3, h, w) at (3, height, width); bicubic with aligned corners, so values may overshoot."""
    content = picture[:, : canvas.content[1], : canvas.content[0]]
    if canvas.content == (width, height):
        return content
    return F.interpolate(content[None], (height, width), mode="bicubic", align_corners=True)[0]


def _fit(width: int, height: int, side: int) -> tuple[int, int]:
    """Return the size with this long side; halves are rounded to even."""
    scale = side / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))
