"""Trains the Paint Transformer's network on strokes that are drawn at random; no picture is needed.

As section 3 of Liu et al. (ICCV 2021, arXiv 2108.03798) has it: strokes are painted over a canvas, and the network is
to say which, from the canvas before and after. Every random number comes from the seed and the step, so that a run that
was killed and resumed ends with the bits of an undisturbed one, on the same machine with the same torch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import Field, model_validator
from scipy.optimize import linear_sum_assignment
from torch.nn import functional as F

from minima_core.progress import track
from minima_core.random import derive
from minima_core.synthesis.paint._meta_brushes import own_brushes
from minima_core.synthesis.paint._painter import PATCH, Painter, PainterSize, random_painter
from minima_core.synthesis.paint._renderer import Region, Strokes, lay
from minima_core.tracking import Tracker
from minima_core.training import checkpoint
from minima_core.training.checkpoint import Progress
from minima_core.training.optim import Falling, adam
from minima_core.training.steps import (
    Fitted,
    descend,
    deterministic,
    keep_best,
    load_best,
    remember_statistics,
    resume,
    set_lr,
)

LOG_EVERY = 20  # steps
VISIBLE = 0.25  # share of a stroke that must be seen for the network to be asked for it
MARK = (0.7, 0.86)  # share of a stroke's width and height that paint covers
_EDGE = 2 / PATCH  # softness of a stroke's edge where it has a gradient, in patches


class PainterTraining(Falling):
    """Settings, ``painter_training`` in params.yaml."""

    size: PainterSize
    steps: int = Field(gt=0)
    batch: int = Field(gt=0)
    lr: float = Field(gt=0)
    clip: float = Field(gt=0)  # norm of the gradient
    side: tuple[float, float]  # range of a stroke's sides, as shares of the patch
    shape_weight: float = Field(ge=0)  # of the distance between parameters
    wasserstein_weight: float = Field(ge=0)  # of the distance between the areas
    decision_weight: float = Field(ge=0)  # of whether a stroke is to be drawn
    pixel_weight: float = Field(ge=0)  # of the painted result
    validation_samples: int = Field(gt=0)
    validate_every: int = Field(gt=0)  # steps
    checkpoint_every: int = Field(gt=0)  # steps
    max_skipped: int = Field(ge=0)  # steps that may be lost to non-finite losses
    threads: int = Field(gt=0)  # of torch; part of the result

    @model_validator(mode="after")
    def _ordered(self) -> PainterTraining:
        if not 0 < self.side[0] <= self.side[1] <= 1:
            raise ValueError("side must be two shares in rising order, above 0 and up to 1")
        return self


@dataclass(frozen=True)
class Scenes:
    """B random tasks.

    Attributes:
        canvas: (B, 3, 32, 32) float32, before.
        target: (B, 3, 32, 32) float32, after.
        shape: (B, n, 5) the strokes between, as in ``Strokes``, the last on top.
        expected: (B, n) bool: strokes that were painted and can still be seen.
    """

    canvas: torch.Tensor
    target: torch.Tensor
    shape: torch.Tensor
    expected: torch.Tensor

    def to(self, device: str) -> Scenes:
        """Return the tasks on a device."""
        return Scenes(*(part.to(device) for part in (self.canvas, self.target, self.shape, self.expected)))


def fit_painter(
    params: PainterTraining, *, seed: int, tracker: Tracker, scratch: Path, device: str = "cpu"
) -> tuple[Painter, Fitted]:
    """Train a network and return it with the weights of the lowest validation loss.

    Args:
        params: the settings.
        seed: of everything that is drawn.
        tracker: gets the curves.
        scratch: folder of the checkpoints; one that belongs to these parameters and this seed alone.
        device: of torch.

    Raises:
        TrainingError: if more than ``max_skipped`` steps had a loss or a gradient that is not finite, or a validation
            loss is not.
    """
    painter = random_painter(params.size, derive(seed, "painter", "initial weights") >> 1).to(device)
    with deterministic(params.threads):
        optimiser = adam(painter.parameters(), params.lr)
        progress = resume(scratch, optimiser, painter.load_state_dict) or Progress()
        for step in track(range(progress.step, params.steps), "training", total=params.steps, done=progress.step):
            if step == 0:
                _validate(painter, params, seed, progress, tracker, scratch)
            _step(painter, optimiser, scenes_of(params, seed, step).to(device), params, progress, tracker)
            if progress.step % params.validate_every == 0 or progress.step == params.steps:
                _validate(painter, params, seed, progress, tracker, scratch)
            if progress.step % params.checkpoint_every == 0 or progress.step == params.steps:
                checkpoint.save(scratch, progress, painter.state_dict(), optimiser)
    load_best(scratch, painter)
    return painter.eval(), Fitted.of(progress)


def _step(
    painter: Painter,
    optimiser: torch.optim.Optimizer,
    scenes: Scenes,
    params: PainterTraining,
    progress: Progress,
    tracker: Tracker,
) -> None:
    """Do one step, or count it as skipped where its loss or gradient is not finite."""
    lr = set_lr(optimiser, params.factor(progress.step, params.steps))
    painter.train()
    put_back = remember_statistics(painter)
    optimiser.zero_grad(set_to_none=True)
    shape, logit = painter(scenes.target, scenes.canvas)
    parts = losses(shape, logit, scenes)
    total = weighted(parts, params)
    norm = descend(
        optimiser,
        total,
        painter.parameters(),
        progress,
        clip=params.clip,
        max_skipped=params.max_skipped,
        remedy="lower painter_training.lr",
    )
    if norm is None:
        put_back()
        return
    if progress.step % LOG_EVERY == 0:
        values = {"train/loss": float(total.detach()), "train/lr": lr, "train/norm": norm}
        values |= {f"train/{name}": float(value.detach()) for name, value in parts.items()}
        progress.log(values, progress.step)
        tracker.metrics(values, progress.step)


@torch.no_grad()
def _validate(
    painter: Painter, params: PainterTraining, seed: int, progress: Progress, tracker: Tracker, scratch: Path
) -> None:
    """Log the losses on tasks that are always the same; weights that are the best so far are kept."""
    painter.eval()
    generator = torch.Generator().manual_seed(derive(seed, "painter", "validation") >> 1)
    scenes = random_scenes(params.validation_samples, params.size.strokes, params.side, generator)
    scenes = scenes.to(str(painter.query_pos.device))
    shape, logit = painter(scenes.target, scenes.canvas)
    parts = losses(shape, logit, scenes)
    loss = float(weighted(parts, params))
    values = {"val/loss": loss, **{f"val/{name}": float(value) for name, value in parts.items()}}
    keep_best(scratch, painter, loss, progress, remedy="lower painter_training.lr", leads=True)
    progress.log(values, progress.step)
    tracker.metrics(values, progress.step)


def scenes_of(params: PainterTraining, seed: int, step: int) -> Scenes:
    """Return the tasks of a step, from 0."""
    generator = torch.Generator().manual_seed(derive(seed, "painter", step) >> 1)
    return random_scenes(params.batch, params.size.strokes, params.side, generator)


def random_scenes(count: int, strokes: int, side: tuple[float, float], generator: torch.Generator) -> Scenes:
    """Return tasks: half of the canvases are black, as at the beginning, half are covered with strokes twice as large,
    as a coarser pass leaves them; none up to all of the ``strokes`` are painted over that.

    The longer side of a stroke is its height, so that there is one description of a stroke.
    """

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    def shapes() -> torch.Tensor:
        sides = (side[0] + (side[1] - side[0]) * uniform(count, strokes, 2)).sort(-1).values
        return torch.cat([uniform(count, strokes, 2), sides, uniform(count, strokes, 1)], -1)

    below, above = shapes(), shapes()
    below = torch.cat([below[..., :2] * 1.5 - 0.25, 2 * below[..., 2:4], below[..., 4:]], -1)
    covered = (uniform(count, 1) < 0.5).expand(-1, strokes)
    painted = torch.arange(strokes) < torch.randint(0, strokes + 1, (count, 1), generator=generator)
    canvas = torch.zeros(count, 3, PATCH, PATCH)
    _lay(canvas, below, uniform(count, strokes, 3), covered)
    target = canvas.clone()
    _lay(target, above, uniform(count, strokes, 3), painted)
    return Scenes(canvas, target, above, painted & (visible(above, painted) >= VISIBLE))


def _lay(canvas: torch.Tensor, shape: torch.Tensor, colour: torch.Tensor, drawn: torch.Tensor) -> None:
    """Paint the ``drawn`` (B, n) of (B, n, 5) strokes on (B, 3, 32, 32) canvases in place, as the engine does."""
    image = torch.nonzero(drawn)[:, 0]
    window = torch.stack([image, torch.zeros_like(image), torch.zeros_like(image)], -1)
    lay(canvas, Strokes(shape[drawn], colour[drawn], window), PATCH, own_brushes(), Region(0, PATCH, 0, PATCH))


def visible(shape: torch.Tensor, painted: torch.Tensor) -> torch.Tensor:
    """Return (B, n): what share of the area of each stroke no later one that was ``painted`` (B, n) hides."""
    cover = (soft_cover(shape) > 0.5).float()
    open_above = torch.ones_like(cover)
    for number in range(shape.shape[1] - 2, -1, -1):
        hides = cover[:, number + 1] * painted[:, number + 1, None, None]
        open_above[:, number] = open_above[:, number + 1] * (1 - hides)
    return (cover * open_above).sum((2, 3)) / cover.sum((2, 3)).clamp(min=1)


def soft_cover(shape: torch.Tensor) -> torch.Tensor:
    """Return (B, n, 32, 32) in [0, 1]: how far (B, n, 5) strokes cover pixels; rectangles with edges of a few pixels.

    The engine's own renderer covers a pixel or not, which has no gradient.
    """
    at = (torch.arange(PATCH, device=shape.device) + 0.5) / PATCH
    x, y, w, h, angle = (part[..., None, None] for part in shape.unbind(-1))
    cos, sin = torch.cos(angle * math.pi), torch.sin(angle * math.pi)
    dx, dy = at - x, at[:, None] - y
    across, along = (cos * dx + sin * dy).abs(), (cos * dy - sin * dx).abs()
    inside = (MARK[0] / 2 * w - across) / _EDGE, (MARK[1] / 2 * h - along) / _EDGE
    return torch.sigmoid(4 * inside[0]) * torch.sigmoid(4 * inside[1])


def losses(shape: torch.Tensor, logit: torch.Tensor, scenes: Scenes) -> dict[str, torch.Tensor]:
    """Return what is wrong with proposed strokes, (B, n, 5) and (B, n, 1) as of ``Painter``.

    ``shape`` and ``wasserstein`` compare each expected stroke with the proposal that the best assignment gives it,
    ``decision`` is the cross-entropy of drawing those and no others, ``pixel`` the mean difference of the results.
    """
    logit = logit[..., 0]
    apart, between = shape_distance(shape, scenes.shape), wasserstein(shape, scenes.shape)
    wanted = F.softplus(-logit)[:, :, None].expand_as(apart)  # cross-entropy of drawing the proposal
    image, proposal, stroke = _assign(apart + 10 * between + wanted, scenes.expected)
    decided = torch.zeros_like(logit)
    decided[image, proposal] = 1
    count = max(1, len(image))
    return {
        "shape": apart[image, proposal, stroke].sum() / count,
        "wasserstein": between[image, proposal, stroke].sum() / count,
        "decision": F.binary_cross_entropy_with_logits(logit, decided),
        "pixel": (painted_softly(shape, logit, scenes) - scenes.target).abs().mean(),
    }


def weighted(parts: dict[str, torch.Tensor], params: PainterTraining) -> torch.Tensor:
    """Return the sum that is made small."""
    return (
        params.shape_weight * parts["shape"]
        + params.wasserstein_weight * parts["wasserstein"]
        + params.decision_weight * parts["decision"]
        + params.pixel_weight * parts["pixel"]
    )


def shape_distance(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return (B, n, m): sum of the absolute differences of (B, n, 5) and (B, m, 5) strokes; angles repeat after 1."""
    apart = one[:, :, None] - other[:, None]
    turn = apart[..., 4] - apart[..., 4].detach().round()
    return apart[..., :4].abs().sum(-1) + turn.abs()


def wasserstein(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Return (B, n, m): squared 2-Wasserstein distance of (B, n, 5) and (B, m, 5) strokes, taken as Gaussians.

    Their standard deviations are half the sides, along the rotated axes. For two dimensions the trace of the root of a
    product is a root of its trace and determinant.
    """
    a, b = _covariance(one)[:, :, None], _covariance(other)[:, None]
    centres = (one[:, :, None, :2] - other[:, None, :, :2]).square().sum(-1)
    product = a[..., 0] * b[..., 0] + 2 * a[..., 1] * b[..., 1] + a[..., 2] * b[..., 2]
    roots = (one[..., 2] * one[..., 3]).abs()[:, :, None] * (other[..., 2] * other[..., 3]).abs()[:, None] / 16
    spread = a[..., 0] + a[..., 2] + b[..., 0] + b[..., 2]
    return centres + spread - 2 * (product + 2 * roots).clamp(min=1e-12).sqrt()


def _covariance(shape: torch.Tensor) -> torch.Tensor:
    """Return (..., 3): xx, xy and yy of strokes taken as Gaussians."""
    cos, sin = torch.cos(shape[..., 4] * math.pi), torch.sin(shape[..., 4] * math.pi)
    w, h = shape[..., 2].square() / 4, shape[..., 3].square() / 4
    return torch.stack([cos**2 * w + sin**2 * h, cos * sin * (w - h), sin**2 * w + cos**2 * h], -1)


def _assign(cost: torch.Tensor, expected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the image, the proposal and the stroke of the cheapest pairs that serve every expected stroke.

    ``cost`` is (B, proposals, strokes), ``expected`` (B, strokes) bool.
    """
    table = cost.detach().double().nan_to_num(1e6, 1e6, 1e6).cpu().numpy()
    found = []
    for image, asked in enumerate(expected.cpu().numpy()):
        strokes = np.flatnonzero(asked)
        proposals, columns = linear_sum_assignment(table[image][:, strokes])
        found.append(np.stack([np.full(len(columns), image), proposals, strokes[columns]]))
    image, proposal, stroke = torch.from_numpy(np.concatenate(found, 1)).to(cost.device)
    return image, proposal, stroke


def painted_softly(shape: torch.Tensor, logit: torch.Tensor, scenes: Scenes) -> torch.Tensor:
    """Return (B, 3, 32, 32) canvases with the proposals on them, so that pixels have gradients.

    A stroke is drawn or not, but its gradient is that of the probability; colours are those of the target in the middle
    of each stroke, as at inference.
    """
    probability = torch.sigmoid(logit)
    drawn = (logit > 0).float() + probability - probability.detach()
    cover = soft_cover(shape) * drawn[..., None, None]
    place = 2 * shape.detach()[:, :, None, :2] - 1
    colour = F.grid_sample(scenes.target, place, align_corners=False)[..., 0]  # (B, 3, n)
    canvas = scenes.canvas
    for number in range(shape.shape[1]):
        over = cover[:, None, number]
        canvas = canvas + over * (colour[:, :, number, None, None] - canvas)
    return canvas
