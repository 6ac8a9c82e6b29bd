"""The loop of what learns from drawn views: steps, validation on fixed ones, checkpoints for a run that was cut."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from minima_core.random import rng
from minima_core.tracking import Tracker
from minima_core.training.average import Average
from minima_core.training.checkpoint import Progress
from minima_core.training.distributed import group
from minima_core.training.optim import Falling
from minima_core.training.steps import (
    Fitted,
    Run,
    add,
    deterministic,
    go_through,
    keep_best,
    one_ahead,
    remember_statistics,
    resume,
    set_lr,
    update,
)
from minima_core.training.views import Album, Batch, Views, draw

REMEDY = "lower the rates or look at the pictures"


class ViewTraining(Views, Falling):
    """Settings of a training on drawn views."""

    steps: Annotated[int, Field(ge=0)]
    micro_batch: Annotated[int, Field(gt=0)]  # of a step's pairs, how many a process computes on at a time
    ema: Annotated[float, Field(ge=0, lt=1)]  # decay of the average of weights that is validated and kept; 0: none
    clip: Annotated[float, Field(gt=0)]  # norm of the gradient
    validation_pairs: Annotated[int, Field(gt=0)]
    validate_every: Annotated[int, Field(gt=0)]  # steps
    checkpoint_every: Annotated[int, Field(gt=0)]  # steps
    log_every: Annotated[int, Field(gt=0)]  # steps
    max_skipped: Annotated[int, Field(ge=0)]  # steps that may be lost to losses that are not finite
    precision: Literal["float32", "bfloat16"]  # of the networks' forward passes; weights and losses are float32
    threads: Annotated[int, Field(gt=0)]  # of torch; part of the result

    def computing(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context in which networks compute in ``precision``."""
        return torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bfloat16")


class Learner(nn.Module, ABC):
    """What is trained: ``kept`` holds the weights, ``JUDGED`` names the part of the loss that says which are best."""

    JUDGED: ClassVar[str]

    @property
    @abstractmethod
    def kept(self) -> nn.Module:
        """The network whose weights are saved and validated."""

    @abstractmethod
    def groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's parameter groups, ``initial_lr`` of each is its rate at factor 1."""

    @abstractmethod
    def loss(self, batch: Batch, random: torch.Generator) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of a batch and its parts."""


@dataclass
class _Run(Run[nn.Module]):
    """What the parts of a training share."""

    learner: Learner
    album: Album
    held_out: Album
    params: ViewTraining
    seed: int


def fit_views(
    learner: Learner,
    album: Album,
    held_out: Album,
    params: ViewTraining,
    *,
    seed: int,
    tracker: Tracker,
    scratch: Path,
) -> Fitted:
    """Train ``learner.kept`` in place and leave in it the weights with the lowest validation loss.

    Processes that torchrun has started share the pairs of a step; one of them writes. How many they are, and how many
    pairs each computes on at a time, changes neither the pairs nor how much each counts, but which points of their
    views are drawn and over what batch norms take their statistics.

    Args:
        learner: on its device, with the weights to start from.
        album: pictures to train on.
        held_out: pictures to validate on.
        params: the settings.
        seed: of everything drawn.
        tracker: gets the curves.
        scratch: folder of the checkpoints; one that belongs to these settings and pictures alone.

    Raises:
        TrainingError: if too many steps are not finite, or a validation loss is not.
    """
    with deterministic(params.threads):
        optimiser = torch.optim.Adam(learner.groups())
        average = Average(learner.kept, params.ema)
        found = resume(scratch, optimiser, average.load)
        progress = found or Progress()
        shared = (learner.kept, optimiser, average, progress, group(), tracker, scratch)
        run = _Run(*shared, learner, album, held_out, params, seed)
        run.group.wait()  # until all have looked for a checkpoint
        if found is None:
            _validate(run)
            run.save()
        batches = one_ahead(partial(_own_parts, run), range(progress.step, params.steps))
        return go_through(run, batches, partial(_step, run), partial(_validate, run), params)


@dataclass(frozen=True)
class _Part:
    """Some pairs of a step: what share of them all they are, and what draws their points."""

    batch: Batch
    share: float
    random: torch.Generator


def _own_parts(run: _Run, step: int) -> list[_Part]:
    """Return this process's pairs of a step."""
    numbers = run.group.share(range(run.params.batch))
    if not numbers:
        return []
    return _parts(run, draw(run.album, run.params, run.seed, step, device=run.device, pairs=numbers), step, numbers)


def _parts(run: _Run, batch: Batch, step: int | str, numbers: Sequence[int]) -> list[_Part]:
    """Return a batch in parts that fit into memory, given the numbers that its pairs have in their step."""
    size, parts = run.params.micro_batch, []
    for first in range(0, len(numbers), size):
        some = numbers[first : first + size]
        key = ("points", step, some[0]) if some[0] else ("points", step)
        random = torch.Generator().manual_seed(int(rng(run.seed, *key).integers(2**62)))
        parts.append(_Part(batch.of_pairs(first, len(some)), len(some) / run.params.batch, random))
    return parts


def _step(run: _Run, parts: list[_Part]) -> None:
    """Do one step, or count it as skipped where its loss or gradient is not finite."""
    learner, params, progress = run.learner, run.params, run.progress
    set_lr(run.optimiser, params.factor(progress.step, params.steps))
    run.optimiser.zero_grad(set_to_none=True)
    learner.train()
    put_back = remember_statistics(learner)
    sums: dict[str, float] = {}
    for part in parts:
        total, values = learner.loss(part.batch, part.random)
        torch.autograd.backward(total * part.share)
        add(sums, "train/", {"loss": float(total.detach()), **values}, part.share)
    sums = run.group.total(sums)
    learning = [weight for some in run.optimiser.param_groups for weight in some["params"]]
    run.group.add_gradients(learning)
    norm = update(
        run.optimiser,
        learning,
        progress,
        finite=math.isfinite(sums["train/loss"]),
        clip=params.clip,
        max_skipped=params.max_skipped,
        remedy=REMEDY,
    )
    if norm is None:
        put_back()
        return
    run.average.update()
    if progress.step % params.log_every == 0:
        run.log({"train/loss": sums["train/loss"], "train/norm": norm, **sums})


@torch.no_grad()
def _validate(run: _Run) -> None:
    """Log the losses over fixed pairs of held-out pictures; the weights with the lowest judged one are kept."""
    learner, params = run.learner, run.params
    run.follow_leader()
    learner.eval()
    sums: dict[str, float] = {}
    rounds = range(-(-params.validation_pairs // params.batch))
    with run.average.in_place():
        for n in run.group.share(rounds):
            name = f"validation {n}"
            batch = draw(run.held_out, params, run.seed, name, device=run.device)
            for part in _parts(run, batch, name, range(params.batch)):
                total, values = learner.loss(part.batch, part.random)
                add(sums, "val/", {"loss": float(total), **values}, part.share / len(rounds))
        sums = run.group.total(sums)
        judged = sums[f"val/{learner.JUDGED}"]
        keep_best(run.scratch, run.network, judged, run.progress, remedy=REMEDY, leads=run.group.leads)
    run.log(sums)
