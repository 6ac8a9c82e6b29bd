"""How much faster strokes are laid than one after the other: `python benchmarks/paint_renderer.py [--size 640x480]`.

Both ways lay the same random strokes, of all passes of a painting, in the same run on one core; the times are processor
time. The plain way is that of the published program in its serial mode: for each of the eight strokes of a group of
windows, the whole windows are warped, dilated, eroded and blended. The paintings must be equal to 1/255.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch.nn import functional as F

from minima_core.random import derive
from minima_core.synthesis.paint import _paint_passes as passes
from minima_core.synthesis.paint._meta_brushes import own_brushes
from minima_core.synthesis.paint._renderer import Region, Strokes, affine, lay, resized

STROKES = 8  # of a patch


def main() -> None:
    """Lay the strokes of one painting both ways and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--share", type=float, default=0.7, help="of the strokes that are drawn before the last pass")
    arguments = parser.parse_args()
    width, height = (int(word) for word in arguments.size.split("x"))
    torch.set_num_threads(1)
    side, place = passes.square_side(height, width), passes.centred(height, width)
    whole = passes.plan(side, Region(0, side, 0, side))
    lean = passes.plan(side, place)
    work = [random_strokes(step, number, arguments.share) for number, step in enumerate(whole)]
    brushes = own_brushes()
    plain, plain_seconds = timed(lambda: plainly(side, whole, work, brushes))
    laid, seconds = timed(lambda: at_once(side, whole, whole, work, brushes))
    part, part_seconds = timed(lambda: at_once(side, whole, lean, work, brushes))
    inside = (..., slice(place.y0, place.y1), slice(place.x0, place.x1))
    count = sum(len(strokes.shape) for strokes in work)
    for name, one, other in (("square canvas", plain, laid), ("picture alone", plain[inside], part[inside])):
        worst = float((one - other).abs().max())
        assert worst <= 1 / 255, f"{name}: differs by {255 * worst:.1f} grey levels"
        print(f"{name}: largest difference {255 * worst:.6f} grey levels")
    print(f"{count} strokes for {width} x {height} on a square of {side}, {len(whole)} passes, one core")
    print(f"{'one after the other':36} {plain_seconds:7.2f} s")
    for name, spent in (("at once, the whole square", seconds), ("at once, what the picture needs", part_seconds)):
        print(f"{name:36} {spent:7.2f} s   {plain_seconds / spent:5.1f} times as fast")


def timed(work: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, float]:
    """Return what ``work`` returns and the processor time it takes."""
    begun = time.process_time()
    result = work()
    return result, time.process_time() - begun


def random_strokes(step: passes.Pass, number: int, share: float) -> Strokes:
    """Return strokes as a trained network proposes them: anywhere on the patch, a tenth to seven tenths of its side."""
    generator = torch.Generator().manual_seed(derive(0, "strokes", number) >> 1)
    window, group = passes.windows(1, step, torch.device("cpu"))
    shape = torch.rand(len(window), STROKES, 5, generator=generator)
    shape[..., :2] = shape[..., :2] / 2 + 0.25
    shape[..., 2:4] = (0.1 + 0.6 * shape[..., 2:4]) / 2
    colour = torch.rand(len(window), STROKES, 3, generator=generator)
    drawn = torch.rand(len(window), STROKES, generator=generator) < (1 if step.border else share)
    return passes.in_order(shape, colour, drawn, window, group)


def at_once(
    side: int, whole: list[passes.Pass], steps: list[passes.Pass], work: list[Strokes], brushes: torch.Tensor
) -> torch.Tensor:
    """Return the painting as the package makes it; of ``whole`` only what ``steps`` need."""
    canvas = torch.zeros(1, 3, side, side)
    for full, step, strokes in zip(whole, steps, work, strict=True):
        lay(canvas, strokes, 2 * full.patch, brushes, step.region)
    return canvas


def plainly(side: int, whole: list[passes.Pass], work: list[Strokes], brushes: torch.Tensor) -> torch.Tensor:
    """Return the painting as its definition reads."""
    canvas = torch.zeros(1, 3, side, side)
    for step, strokes in zip(whole, work, strict=True):
        canvas = one_by_one(canvas, strokes, step.patch, step.border, brushes)
    return canvas


def one_by_one(canvas: torch.Tensor, strokes: Strokes, patch: int, border: int, brushes: torch.Tensor) -> torch.Tensor:
    """Return (1, 3, S, S) ``canvas`` with strokes laid in windows twice as large as patches, one stroke at a time.

    Strokes that do not share a window and follow each other are laid together, as the published program does.
    """
    around = border + patch // 2
    padded = F.pad(canvas, (around + patch,) * 4)
    for some in runs(strokes.window):
        origin = strokes.window[some, 1:] + around + patch
        foreground, alpha = whole_windows(strokes.shape[some], strokes.colour[some], 2 * patch, brushes)
        for (y, x), fore, cover in zip(origin.tolist(), foreground, alpha, strict=True):
            inside = (0, slice(None), slice(y, y + 2 * patch), slice(x, x + 2 * patch))
            padded[inside] = fore * cover + padded[inside] * (1 - cover)
    end = around + patch
    return padded[..., end:-end, end:-end]


def runs(window: torch.Tensor) -> list[torch.Tensor]:
    """Return the numbers of strokes that follow each other, cut where the windows begin again from the first row."""
    place = (window[:, 1] * 1_000_000 + window[:, 2]).tolist()
    cuts = [n for n in range(1, len(place)) if place[n] <= place[n - 1]]
    return [torch.arange(a, b) for a, b in zip([0, *cuts], [*cuts, len(place)], strict=True)]


def whole_windows(
    shape: torch.Tensor, colour: torch.Tensor, side: int, brushes: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (N, 3, side, side) dilated foreground and (N, 1, side, side) eroded alpha of each stroke's window."""
    upright = shape[:, 3] > shape[:, 2]
    mark = resized(brushes, side, side)[1 - upright.long()][:, None]
    grid = F.affine_grid(affine(shape, side, side), list(mark.shape), align_corners=False)
    value = F.grid_sample(mark, grid, align_corners=False)
    alpha = (value > 0).float()
    foreground = F.max_pool2d(F.pad(value * colour[:, :, None, None], (1,) * 4, value=-1e9), 3, 1)
    return foreground, -F.max_pool2d(F.pad(-alpha, (1,) * 4, value=-1e9), 3, 1)


if __name__ == "__main__":
    main()
