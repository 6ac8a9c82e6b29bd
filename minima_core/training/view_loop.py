"""The loop of what learns from drawn views: steps, validation on fixed ones, checkpoints for a run that was cut."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import nn

from minima_core.progress import track
from minima_core.random import rng
from minima_core.tracking import Tracker
from minima_core.training import checkpoint
from minima_core.training.checkpoint import Progress
from minima_core.training.optim import Falling
from minima_core.training.steps import (
    Fitted,
    descend,
    deterministic,
    keep_best,
    load_best,
    one_ahead,
    remember_statistics,
    resume,
    set_lr,
)
from minima_core.training.views import Album, Batch, Views, draw

REMEDY = "lower the rates or look at the pictures"


class ViewTraining(Views, Falling):
    """Settings of a training on drawn views."""

    steps: Annotated[int, Field(ge=0)]
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
    device = next(learner.parameters()).device
    with deterministic(params.threads):
        optimiser = torch.optim.Adam(learner.groups())
        progress = resume(scratch, optimiser, learner.kept.load_state_dict) or Progress()
        if not progress.step:
            _validate(learner, held_out, params, seed, progress, tracker, scratch)
        drawn = partial(draw, album, params, seed, device=device)
        batches = one_ahead(drawn, range(progress.step, params.steps))
        for batch in track(batches, "training", total=params.steps, done=progress.step):
            _step(learner, optimiser, batch, params, seed, progress, tracker)
            if progress.step % params.validate_every == 0 or progress.step == params.steps:
                _validate(learner, held_out, params, seed, progress, tracker, scratch)
            if progress.step % params.checkpoint_every == 0 or progress.step == params.steps:
                checkpoint.save(scratch, progress, learner.kept.state_dict(), optimiser)
    load_best(scratch, learner.kept)
    return Fitted.of(progress)


def _generator(seed: int, step: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(int(rng(seed, "points", step).integers(2**62)))


def _step(
    learner: Learner,
    optimiser: torch.optim.Optimizer,
    batch: Batch,
    params: ViewTraining,
    seed: int,
    progress: Progress,
    tracker: Tracker,
) -> None:
    """Do one step, or count it as skipped where its loss or gradient is not finite."""
    set_lr(optimiser, params.factor(progress.step, params.steps))
    optimiser.zero_grad(set_to_none=True)
    learner.train()
    put_back = remember_statistics(learner)
    total, parts = learner.loss(batch, _generator(seed, progress.step))
    learning = [weight for group in optimiser.param_groups for weight in group["params"]]
    norm = descend(
        optimiser, total, learning, progress, clip=params.clip, max_skipped=params.max_skipped, remedy=REMEDY
    )
    if norm is None:
        put_back()
    elif progress.step % params.log_every == 0:
        values = {"train/loss": float(total.detach()), "train/norm": norm}
        values |= {f"train/{name}": value for name, value in parts.items()}
        progress.log(values, progress.step)
        tracker.metrics(values, progress.step)


@torch.no_grad()
def _validate(
    learner: Learner,
    held_out: Album,
    params: ViewTraining,
    seed: int,
    progress: Progress,
    tracker: Tracker,
    scratch: Path,
) -> None:
    """Log the losses over fixed pairs of held-out pictures; the weights with the lowest judged one are kept."""
    device = next(learner.parameters()).device
    learner.eval()
    sums: dict[str, float] = {}
    rounds = -(-params.validation_pairs // params.batch)
    for n in range(rounds):
        batch = draw(held_out, params, seed, f"validation {n}", device=device)
        total, parts = learner.loss(batch, _generator(seed, f"validation {n}"))
        for name, value in {"loss": float(total), **parts}.items():
            sums[f"val/{name}"] = sums.get(f"val/{name}", 0.0) + value / rounds
    keep_best(scratch, learner.kept, sums[f"val/{learner.JUDGED}"], progress, remedy=REMEDY, leads=True)
    progress.log(sums, progress.step)
    tracker.metrics(sums, progress.step)
