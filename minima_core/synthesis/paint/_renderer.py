"""Lays the Paint Transformer's strokes: a pixel takes the paint of the last stroke that covers it.

The published program blends whole windows one stroke after the other. As a stroke covers a pixel fully or not at all,
that equals asking each pixel for its last stroke, so that a stroke needs to be looked at only where its mark can lie,
and strokes of about one size can be looked at together, in any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch.nn import functional as F

TILE_PIXELS = 1 << 18  # that are worked on at once: about 20 MB
_STEP = 1.5  # strokes whose sides differ by up to this factor share a batch


@dataclass(frozen=True)
class Region:
    """Rows ``y0`` to ``y1`` and columns ``x0`` to ``x1`` of a canvas, the ends excluded."""

    y0: int
    y1: int
    x0: int
    x1: int


@dataclass(frozen=True)
class Strokes:
    """N strokes in the order in which they are laid.

    Attributes:
        shape: (N, 5) float32 x, y, w, h in shares of their window, and the angle in units of pi.
        colour: (N, 3) float32 RGB in [0, 1].
        window: (N, 3) int64: which canvas, and the window's first row and column there (may lie outside).
    """

    shape: torch.Tensor
    colour: torch.Tensor
    window: torch.Tensor


def lay(canvas: torch.Tensor, strokes: Strokes, side: int, brushes: torch.Tensor, region: Region) -> None:
    """Lay ``strokes`` on canvases, in place, where they fall inside ``region``.

    Args:
        canvas: (B, 3, H, W) float32.
        strokes: what to lay.
        side: of the square windows in pixels; strokes end at their borders.
        brushes: (2, S, S) float32 marks, vertical and horizontal.
        region: of all canvases.
    """
    marks = resized(brushes, side, side)
    height, width = region.y1 - region.y0, region.x1 - region.x0
    top = torch.full((len(canvas) * height * width,), -1, dtype=torch.int64, device=canvas.device)
    transform, upright = affine(strokes.shape, side, side), _upright(strokes.shape)
    box = _boxes(strokes, side, brushes, region)
    for some in _alike(box, upright):
        mark = marks[0 if bool(upright[some[0]]) else 1]
        window, inner = strokes.window[some], box[some]
        tall, wide = (inner[:, 2:] - inner[:, :2]).amax(0).tolist()
        rows = inner[:, :1] + torch.arange(-1, tall + 1, device=canvas.device)
        columns = inner[:, 1:2] + torch.arange(-1, wide + 1, device=canvas.device)
        paint, covered = stamp(transform[some], mark, rows, columns)
        rows, columns = rows[:, 1:-1], columns[:, 1:-1]
        covered &= (rows < inner[:, 2:3])[:, :, None] & (columns < inner[:, 3:])[:, None]
        first = window[:, :1] * height - region.y0 + window[:, 1:2]
        pixel = ((first + rows) * width)[:, :, None] + (columns + window[:, 2:] - region.x0)[:, None]
        # rank above, the paint's bits below: the largest is the last stroke, and carries how thick it is there
        packed = (some << 32)[:, None, None] | paint.view(torch.int32)
        where = torch.nonzero(covered.flatten())[:, 0]
        top.scatter_reduce_(0, pixel.flatten()[where], packed.flatten()[where], "amax")
    inside = canvas[..., region.y0 : region.y1, region.x0 : region.x1]
    _colour(inside, top.view(len(canvas), height, width), strokes.colour)


def _colour(canvas: torch.Tensor, top: torch.Tensor, colour: torch.Tensor) -> None:
    """Put the paint of ``top``, (B, H, W) int64 of ``lay``, on canvases in place."""
    image, row, column = torch.nonzero(top >= 0, as_tuple=True)
    found = top[image, row, column]
    paint = (found & 0xFFFFFFFF).int().view(torch.float32)
    canvas.permute(0, 2, 3, 1)[image, row, column] = colour[found >> 32] * paint[:, None]


def affine(shape: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return (N, 2, 3): from a pixel of a window to a place on the mark, both in [-1, 1] (no corners aligned)."""
    x, y, w, h, angle = shape.unbind(-1)
    cos, sin = torch.cos(angle * math.pi), torch.sin(angle * math.pi)
    dx, dy = 1 - 2 * x, 1 - 2 * y
    across = [cos / w, sin * height / (width * w), dx * cos / w + dy * sin * height / (width * w)]
    down = [-sin * width / (height * h), cos / h, dy * cos / h - dx * sin * width / (height * h)]
    return torch.stack([torch.stack(across, -1), torch.stack(down, -1)], -2)


def resized(brushes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return the (2, S, S) marks as (2, height, width), by the nearest pixel."""
    return F.interpolate(brushes[None], (height, width), mode="nearest")[0]


def stamp(
    transform: torch.Tensor, mark: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where strokes leave paint, and how much.

    Args:
        transform: (N, 2, 3) of ``affine``.
        mark: (H, W) of the window's size.
        rows: (N, h + 2) rows of the window to look at, one more on either side than are returned.
        columns: (N, w + 2) likewise.

    Returns:
        (N, h, w) float32 paint, dilated by one pixel, and (N, h, w) bool cover, eroded by one; what lies outside of the
        window counts for neither.
    """
    height, width = mark.shape
    x, y = (_centres(n, mark.device)[at.clamp(0, n - 1)] for n, at in ((width, columns), (height, rows)))
    (a, b, c), (d, e, f) = (row.unbind(1) for row in transform[..., None].unbind(1))
    # in the order of torch's own affine_grid, so that both give the same bits
    grid = torch.stack(
        [((p * x)[:, None] + (q * y)[:, :, None]) + r[..., None] for p, q, r in ((a, b, c), (d, e, f))], -1
    )
    value = F.grid_sample(mark.expand(len(x), 1, -1, -1), grid, align_corners=False)[:, 0]
    inside = _within(rows, height)[:, :, None] & _within(columns, width)[:, None]
    bare = (value <= 0) & inside
    return _any(value * inside, torch.maximum), ~_any(bare, torch.logical_or)


def _centres(count: int, device: torch.device) -> torch.Tensor:
    """Return (count,) centres of pixels in [-1, 1], to the bit as ``affine_grid`` has them."""
    return torch.linspace(-1, 1, count, device=device) * (count - 1) / count


def _within(at: torch.Tensor, size: int) -> torch.Tensor:
    return (at >= 0) & (at < size)


def _any(values: torch.Tensor, join: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Return the (N, h, w) inner part of (N, h + 2, w + 2), each pixel joined with its eight neighbours."""
    wide = join(join(values[:, :-2], values[:, 1:-1]), values[:, 2:])
    return join(join(wide[..., :-2], wide[..., 1:-1]), wide[..., 2:])


def _upright(shape: torch.Tensor) -> torch.Tensor:
    """Say which strokes are made with the vertical mark."""
    return shape[:, 3] > shape[:, 2]


def _boxes(strokes: Strokes, side: int, brushes: torch.Tensor, region: Region) -> torch.Tensor:
    """Return (N, 4) int64: first row and column of what a stroke can cover of its window, and those after the last.

    Empty where it covers nothing: it misses the region, or is too thin to outlast the erosion, for which three pixels
    side by side must lie on the mark.
    """
    x, y, w, h, angle = strokes.shape.unbind(-1)
    cos, sin = torch.cos(angle * math.pi), torch.sin(angle * math.pi)
    extent = torch.stack([_extent(brush, side) for brush in brushes])[1 - _upright(strokes.shape).long()]
    u, v = extent[:, (0, 0, 1, 1)] * w[:, None], extent[:, (2, 3, 2, 3)] * h[:, None]  # the mark's corners
    corner_x = cos[:, None] * u - sin[:, None] * v + 2 * x[:, None]
    corner_y = sin[:, None] * u + cos[:, None] * v + 2 * y[:, None]
    corners = (torch.stack([corner_y, corner_x], -1) * side - 1) / 2
    offset = strokes.window[:, 1:]
    low = torch.tensor([region.y0, region.x0], device=offset.device) - offset
    high = torch.tensor([region.y1, region.x1], device=offset.device) - offset
    first = torch.maximum(corners.amin(1).floor(), low.clamp(min=0).float())
    last = torch.minimum(corners.amax(1).ceil() + 1, high.clamp(max=side).float())
    drawn = (first < last).all(1) & (torch.minimum(w.abs(), h.abs()) * (side + 1) > 2)
    return torch.where(drawn[:, None], torch.cat([first, last], 1), 0).long()


def _extent(brush: torch.Tensor, side: int) -> torch.Tensor:
    """Return (4,): left, right, top and bottom in [-1, 1] of where samples of a mark of ``side`` pixels are not zero.

    A sample mixes neighbours, and resizing moves the mark by less than a pixel.
    """
    ends = []
    for used in ((brush > 0).any(0), (brush > 0).any(1)):
        at = torch.nonzero(used)[:, 0]
        ends += [2 * at.min() / len(used) - 1 - 4 / side, 2 * (at.max() + 1) / len(used) - 1 + 4 / side]
    return torch.stack(ends)


def _alike(box: torch.Tensor, upright: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yield (n,) numbers of strokes of about the same size and the same mark; those that cover nothing are left out."""
    drawn = torch.nonzero((box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1]))[:, 0]
    size = box[drawn, 2:] - box[drawn, :2]
    steps = (size.double().log() / math.log(_STEP)).ceil().long()
    code = (steps[:, 0] * 1000 + steps[:, 1]) * 2 + upright[drawn]
    code, order = code.sort(stable=True)
    _, counts = torch.unique_consecutive(code, return_counts=True)
    ends = counts.cumsum(0).tolist()
    for begin, end in zip([0, *ends], ends, strict=False):
        group = drawn[order[begin:end]]
        pixels = int((box[group, 2:] - box[group, :2]).amax(0).prod())
        few = max(1, TILE_PIXELS // pixels)
        yield from (group[k : k + few] for k in range(0, len(group), few))
