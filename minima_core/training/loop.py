"""The training loop of every matcher, pre-training and fine-tuning alike.

``view_loop`` is another, over the same steps, for what learns from views that are drawn anew.

What is guaranteed: with the same data, parameters, seed, machine and torch, a run that was killed and resumed any
number of times ends with the same bits as an undisturbed one. The number of threads is part of the parameters because
sums over a batch are split among them; the number of workers is not, because it decides only who computes what. The
number of processes and the size of a micro batch change the rounding and nothing else, for matchers whose loss is a
mean over pairs. Those that normalise batches (LoFTR, EfficientLoFTR, RoMa) take the statistics of a micro batch and do
notice both; LoFTR's authors took those of all GPUs, 8 pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from minima_core.config import Section
from minima_core.data.sampling import Item, PairSampling, batches
from minima_core.matchers.base import Losses, Matcher, Precision, TrainingData, computing_in
from minima_core.tracking import Tracker
from minima_core.training.average import Average, blend
from minima_core.training.checkpoint import Progress
from minima_core.training.distributed import Group, group
from minima_core.training.optim import Optimiser, Schedule, optimiser_for
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


class TrainingParams(Section):
    """Settings of one training, ``training.<stage>.<matcher>`` in params.yaml."""

    steps: Annotated[int, Field(ge=0)]
    batch: Annotated[int, Field(gt=0)]  # pairs a step, over all devices
    micro_batch: Annotated[int, Field(gt=0)]  # of these, how many a process computes on at a time
    max_keypoints: Annotated[int, Field(gt=0)]  # of an image in training; may be fewer than at inference
    precision: Precision  # of the forward pass; weights are float32
    compile: bool  # by torch.compile
    optimiser: Optimiser
    schedule: Schedule
    clip: Annotated[float, Field(gt=0)] | None  # norm of the gradient
    ema: Annotated[float, Field(ge=0, lt=1)]  # decay of the average of weights that is validated and kept; 0: none
    learned_share: Annotated[float, Field(gt=0, le=1)]  # of the way from the weights at the start to the trained ones
    pairs: PairSampling
    validation_samples: Annotated[int, Field(gt=0)]
    validate_every: Annotated[int, Field(gt=0)]  # steps
    checkpoint_every: Annotated[int, Field(gt=0)]  # steps
    max_skipped: Annotated[int, Field(ge=0)]  # steps that may be lost to non-finite losses
    threads: Annotated[int, Field(gt=0)]  # of torch; part of the result, see the module


@dataclass
class _Run(Run[Matcher]):
    """What the parts of a training share."""

    params: TrainingParams


def fit(
    matcher: Matcher,
    data: TrainingData,
    items: Callable[[int], list[Item]],
    validation: tuple[TrainingData, list[Item]],
    params: TrainingParams,
    *,
    tracker: Tracker,
    scratch: Path,
) -> Fitted:
    """Train ``matcher`` in place and leave in it the weights with the lowest validation loss.

    With a ``learned_share`` below 1 they are left that far on the way there from the weights the matcher came with.
    Processes that torchrun has started share the batches; one of them writes.

    Args:
        matcher: with the weights to start from.
        data: training samples.
        items: the samples of an epoch, by its number.
        validation: samples that do not change, and what to take of them.
        params: the settings.
        tracker: gets the curves.
        scratch: folder of the checkpoints; one that belongs to these parameters and inputs alone.

    Raises:
        TrainingError: if more than ``max_skipped`` steps had a loss or a gradient that is not finite, a validation
            loss is not, or the learning rates are not for this matcher's groups of parameters.
    """
    start = {name: weight.clone() for name, weight in matcher.state_dict().items()} if params.learned_share < 1 else {}
    with deterministic(params.threads):
        optimiser = optimiser_for(matcher.groups(), params.optimiser, params.batch)
        average = Average(matcher, params.ema)
        found = resume(scratch, optimiser, average.load)
        progress = found or Progress(scale=FIRST_SCALE if params.precision == "float16" else 1.0)
        if params.compile:
            matcher.compile()
        run = _Run(matcher, optimiser, average, progress, group(), tracker, scratch, params)
        run.group.wait()  # until all have looked for a checkpoint
        if found is None:
            _validate(run, validation)
            run.save()
        schedule = islice(batches(map(items, count()), params.batch), progress.step, params.steps)
        steps = _own_parts(data, schedule, run.group, params.micro_batch)
        fitted = go_through(run, steps, partial(_step, run), partial(_validate, run, validation), params)
    if start:
        blend(matcher, start, params.learned_share)
    return fitted


LOG_EVERY = 5  # steps
FIRST_SCALE = 65536.0  # of a loss in half precision; it falls where it is too large and never grows, as RoMa's


def _own_parts(
    data: TrainingData, schedule: Iterator[list[Item]], processes: Group, size: int
) -> Iterator[list[tuple[float, Any]]]:
    """Yield this process's part of each batch: collated micro batches, each with its share of the whole batch."""

    def read(items: list[Item]) -> list[tuple[float, Any]]:
        mine = processes.share(items)
        parts = [mine[start : start + size] for start in range(0, len(mine), size)]
        return [(len(part) / len(items), data.collate([data.sample(item) for item in part])) for part in parts]

    return one_ahead(read, schedule)


def _step(run: _Run, parts: list[tuple[float, Any]]) -> None:
    """Do one step, or count it as skipped where its loss or gradient is not finite."""
    params, progress = run.params, run.progress
    lr = set_lr(run.optimiser, params.schedule.factor(progress.step, params.steps))
    run.network.train()
    put_back = remember_statistics(run.network)
    run.optimiser.zero_grad(set_to_none=True)
    sums: dict[str, float] = {}
    for share, batch in parts:
        with computing_in(params.precision, run.device):
            losses = run.network.loss(batch)
        torch.autograd.backward(losses.total * (share * progress.scale))
        add(sums, "train/", _values(losses), share)
    sums = run.group.total(sums)
    parameters = run.network.trainable()
    run.group.add_gradients(parameters)
    if progress.scale != 1:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad /= progress.scale
    norm = update(
        run.optimiser,
        parameters,
        progress,
        finite=math.isfinite(sums["train/loss"]),
        clip=params.clip or math.inf,
        max_skipped=params.max_skipped,
        remedy="lower optimiser.lr or look at the data (the last good state was kept)",
    )
    if norm is None:
        put_back()
        return
    run.average.update()
    if progress.step % LOG_EVERY == 0:
        run.log({"train/loss": sums["train/loss"], "train/lr": lr, "train/norm": norm, **sums})


def _values(losses: Losses) -> dict[str, float]:
    return {"loss": float(losses.total.detach()), **losses.parts}


def _validate(run: _Run, validation: tuple[TrainingData, list[Item]]) -> None:
    """Log the validation losses; weights that are the best so far are kept."""
    run.follow_leader()
    with run.average.in_place():
        values = _evaluate(run, *validation)
        remedy = "look at the val pairs, or lower optimiser.lr"
        keep_best(run.scratch, run.network, values["val/loss"], run.progress, remedy=remedy, leads=run.group.leads)
    run.log(values)


@torch.no_grad()
def _evaluate(run: _Run, data: TrainingData, items: list[Item]) -> dict[str, float]:
    """Return the mean losses over fixed samples, as ``val/<name>``."""
    run.network.eval()
    sums: dict[str, float] = {}
    mine, size = run.group.share(items), run.params.micro_batch
    for start in range(0, len(mine), size):
        some = mine[start : start + size]
        with computing_in(run.params.precision, run.device):
            losses = run.network.loss(data.collate([data.sample(item) for item in some]))
        add(sums, "val/", _values(losses), len(some))
    return {name: value / len(items) for name, value in run.group.total(sums).items()}


def summary(fitted: Fitted) -> Mapping[str, float]:
    """Return what a card may say of a training: counts, no clock."""
    return {"steps": fitted.steps, "skipped": fitted.skipped, "best_step": fitted.final["best/step"]}
