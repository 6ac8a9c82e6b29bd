"""The Paint Transformer's way from a coarse painting to a fine one (spec/data-engine.md section 7.3)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional as F

from minima_core.synthesis.paint._painter import PATCH, Painter
from minima_core.synthesis.paint._renderer import Region, Strokes, lay

FinalPass = Literal["all", "decided"]
PATCHES = 256  # that the network sees at once


@dataclass(frozen=True)
class Pass:
    """One grid of patches over the square canvas, and what of it matters.

    Attributes:
        patch: side of a patch in pixels of the canvas; its strokes may reach half as far beyond it on every side.
        border: pixels that the grid begins above and left of the canvas.
        patches: the rows and columns of the grid that are worked on.
        region: where on the canvas they paint.
    """

    patch: int
    border: int
    patches: Region
    region: Region


def square_side(height: int, width: int) -> int:
    """Return the side of the square canvas that a picture is painted on: 32 times a power of two."""
    return PATCH << layers(height, width)


def layers(height: int, width: int) -> int:
    """Return how often the first patch, which is the whole canvas, is halved."""
    return max(math.ceil(math.log2(max(height, width) / PATCH)), 0)


def centred(height: int, width: int) -> Region:
    """Return where on its square canvas a picture lies."""
    side = square_side(height, width)
    y0, x0 = (side - height) // 2, (side - width) // 2
    return Region(y0, y0 + height, x0, x0 + width)


def plan(side: int, wanted: Region) -> list[Pass]:
    """Return the passes that paint ``wanted`` as if the whole square canvas were painted.

    They are found from the last one back: a pass must paint what is wanted of it, and what the patches of later ones
    look at. A pass over the black around a long picture is so left out wherever nothing of it is ever seen.
    """
    passes = []
    grids = [(side, 0)]
    while grids[-1][0] > PATCH:
        grids.append((grids[-1][0] // 2, 0))
    for patch, border in [(PATCH, PATCH // 2), *reversed(grids)]:
        count = side // patch + (1 if border else 0)
        rows, columns = (
            _reaching(first, last, patch, border, count)
            for first, last in ((wanted.y0, wanted.y1), (wanted.x0, wanted.x1))
        )
        passes.append(Pass(patch, border, Region(*rows, *columns), wanted))
        seen = [n * patch - border for n in (*rows, *columns)]
        wanted = Region(
            max(0, min(wanted.y0, seen[0])),
            min(side, max(wanted.y1, seen[1])),
            max(0, min(wanted.x0, seen[2])),
            min(side, max(wanted.x1, seen[3])),
        )
    return passes[::-1]


def _reaching(first: int, last: int, patch: int, border: int, count: int) -> tuple[int, int]:
    """Return the range of patches of a row whose strokes reach the pixels from ``first`` to before ``last``."""
    reach = patch // 2
    begin = (first + border - patch - reach) // patch + 1
    end = -(-(last + border + reach) // patch)
    return max(0, begin), min(count, end)


def paint(painter: Painter, pictures: torch.Tensor, brushes: torch.Tensor, final_pass: FinalPass) -> torch.Tensor:
    """Return the paintings of (B, 3, H, W) float32 pictures in [0, 1], of the same shape and range.

    Args:
        painter: the network, in any precision; strokes are laid in float32.
        pictures: what to paint, on the network's device.
        brushes: (2, S, S) float32 marks, vertical and horizontal.
        final_pass: whether the last pass lays only the strokes that the network wants, or, as published, all of them.
    """
    place = centred(*pictures.shape[2:])
    *_, canvas = canvases(painter, pictures, brushes, final_pass, place)
    return canvas[..., place.y0 : place.y1, place.x0 : place.x1]


@torch.inference_mode()
def canvases(
    painter: Painter, pictures: torch.Tensor, brushes: torch.Tensor, final_pass: FinalPass, wanted: Region
) -> Iterator[torch.Tensor]:
    """Yield the (B, 3, S, S) square canvases after each pass: one tensor, which the next pass goes on with.

    Only ``wanted`` is sure to be right in the end.
    """
    height, width = pictures.shape[2:]
    side, place = square_side(height, width), centred(height, width)
    target = F.pad(pictures, (place.x0, side - place.x1, place.y0, side - place.y1))
    canvas = torch.zeros_like(target)
    everything = final_pass == "all"  # noqa: S105, no password
    for step in plan(side, wanted):
        strokes = _wanted_strokes(painter, target, canvas, step, everything=everything and step.border > 0)
        lay(canvas, strokes, 2 * step.patch, brushes, step.region)
        yield canvas


def _wanted_strokes(
    painter: Painter, target: torch.Tensor, canvas: torch.Tensor, step: Pass, *, everything: bool
) -> Strokes:
    """Return the strokes of one pass in their order; ``everything``: also those that the network does not want."""
    here, there = _patches(target, step), _patches(canvas, step)
    dtype = painter.query_pos.dtype
    parts = [
        painter(here[k : k + PATCHES].to(dtype), there[k : k + PATCHES].to(dtype)) for k in range(0, len(here), PATCHES)
    ]
    shape, logit = (torch.cat(part).float() for part in zip(*parts, strict=True))
    colour = F.grid_sample(here, 2 * shape[:, :, None, :2] - 1, align_corners=False)[..., 0].transpose(1, 2)
    drawn = logit[..., 0] != 0 if everything else logit[..., 0] > 0
    # windows are twice as large as patches
    shape = torch.cat([shape[..., :2] / 2 + 0.25, shape[..., 2:4] / 2, shape[..., 4:]], -1)
    return in_order(shape, colour, drawn, *windows(len(target), step, target.device))


def in_order(
    shape: torch.Tensor, colour: torch.Tensor, drawn: torch.Tensor, window: torch.Tensor, group: torch.Tensor
) -> Strokes:
    """Return the ``drawn`` (N, n) of the strokes of N windows as they are laid: a group's first ones, its second ones,
    ..., then those of the next group.

    Args:
        shape: (N, n, 5) as in ``Strokes``.
        colour: (N, n, 3) as in ``Strokes``.
        drawn: (N, n) bool.
        window: (N, 3) as in ``Strokes``.
        group: (N,) as of ``windows``.
    """
    strokes = shape.shape[1]
    turn = group[:, None] * strokes + torch.arange(strokes, device=group.device)
    number = torch.nonzero(drawn.flatten())[:, 0]
    number = number[turn.flatten()[number].argsort(stable=True)]
    return Strokes(shape.flatten(0, 1)[number], colour.flatten(0, 1)[number], window[number // strokes])


def _patches(pictures: torch.Tensor, step: Pass) -> torch.Tensor:
    """Return the patches of a pass, reduced to 32 pixels by taking every n-th: (B * rows * columns, 3, 32, 32)."""
    grid, every = step.patches, step.patch // PATCH
    y, x = (slice(a * step.patch, b * step.patch, every) for a, b in ((grid.y0, grid.y1), (grid.x0, grid.x1)))
    small = (F.pad(pictures, (step.border,) * 4) if step.border else pictures)[..., y, x]
    cut = small.reshape(len(small), 3, grid.y1 - grid.y0, PATCH, grid.x1 - grid.x0, PATCH)
    return cut.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)


def windows(count: int, step: Pass, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return, for the patches of ``count`` pictures, (N, 3) windows as in ``Strokes`` and (N,) the group they are in.

    The windows of a group do not overlap; groups are laid in the order of their numbers, which is the published one.
    """
    grid = step.patches
    image, row, column = torch.meshgrid(
        *(torch.arange(a, b, device=device) for a, b in ((0, count), (grid.y0, grid.y1), (grid.x0, grid.x1))),
        indexing="ij",
    )
    first = -step.border - step.patch // 2
    window = torch.stack([image, row * step.patch + first, column * step.patch + first], -1).flatten(0, 2)
    order = torch.tensor([[0, 3], [2, 1]], device=device)  # [row odd][column odd]
    return window, order[row % 2, column % 2].flatten()
