"""The one training loop: every matcher, pre-training and fine-tuning alike.

What is guaranteed: with the same data, parameters, seed, machine and torch, a run that was killed and resumed any
number of times ends with the same bits as an undisturbed one. The number of threads is part of the parameters because
sums over a batch are split among them; the number of workers is not, because it decides only who computes what.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import count, islice
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from minima_core.config import Section
from minima_core.data.sampling import Item, PairSampling, batches
from minima_core.errors import TrainingError
from minima_core.io.weights import save_weights
from minima_core.matchers.base import Matcher, TrainingData
from minima_core.progress import track
from minima_core.tracking import Tracker
from minima_core.training import checkpoint
from minima_core.training.checkpoint import Progress
from minima_core.training.optim import adam, scaled_lr
from minima_core.training.steps import Fitted, descend, deterministic, resume, set_lr


class TrainingParams(Section):
    """Settings of one training, ``training.<stage>`` in params.yaml."""

    steps: Annotated[int, Field(ge=0)]
    batch: Annotated[int, Field(gt=0)]  # pairs a step, over all devices
    max_keypoints: Annotated[int, Field(gt=0)]  # of an image in training; may be fewer than at inference
    lr_at_32: Annotated[float, Field(gt=0)]  # learning rate at the paper's batch of 32; scaled to ours
    warmup: Annotated[int, Field(ge=0)]  # steps
    decay_from: Annotated[float, Field(ge=0, le=1)]  # share of the steps after which the rate falls
    decay_to: Annotated[float, Field(gt=0, le=1)]  # factor of the rate at the end
    clip: Annotated[float, Field(gt=0)]  # norm of the gradient
    pairs: PairSampling
    validation_samples: Annotated[int, Field(gt=0)]
    validate_every: Annotated[int, Field(gt=0)]  # steps
    checkpoint_every: Annotated[int, Field(gt=0)]  # steps
    max_skipped: Annotated[int, Field(ge=0)]  # steps that may be lost to non-finite losses
    threads: Annotated[int, Field(gt=0)]  # of torch; part of the result, see the module


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

    Args:
        matcher: with the weights to start from.
        data: training samples.
        items: the samples of an epoch, by its number.
        validation: samples that do not change, and what to take of them.
        params: the settings.
        tracker: gets the curves.
        scratch: folder of the checkpoints; one that belongs to these parameters and inputs alone.

    Raises:
        TrainingError: if more than ``max_skipped`` steps had a loss or a gradient that is not finite, or a validation
            loss is not.
    """
    with deterministic(params.threads):
        optimiser = adam(matcher.trainable(), scaled_lr(params.lr_at_32, params.batch))
        progress = resume(scratch, optimiser, matcher.load_state_dict)
        if progress is None:
            progress = Progress()
            _validate(matcher, validation, params, progress, tracker, scratch)
            checkpoint.save(scratch, progress, matcher.state_dict(), optimiser)
        schedule = islice(batches(map(items, count()), params.batch), progress.step, params.steps)
        for batch in track(_ahead(data, schedule), "training", total=params.steps, done=progress.step):
            _step(matcher, optimiser, batch, params, progress, tracker)
            if progress.step % params.validate_every == 0 or progress.step == params.steps:
                _validate(matcher, validation, params, progress, tracker, scratch)
            if progress.step % params.checkpoint_every == 0 or progress.step == params.steps:
                checkpoint.save(scratch, progress, matcher.state_dict(), optimiser)
    matcher.load_state_dict(checkpoint.weights(scratch / _BEST))
    return Fitted.of(progress)


_BEST = "best.safetensors"
LOG_EVERY = 5  # steps


def _ahead(data: TrainingData, schedule: Iterator[list[Item]]) -> Iterator[Any]:
    """Yield collated batches; the next one is read while the last is computed on."""

    def read(items: list[Item]) -> Any:
        return data.collate([data.sample(item) for item in items])

    with ThreadPoolExecutor(1) as reader:
        waiting = None
        for items in schedule:
            upcoming = reader.submit(read, items)
            if waiting is not None:
                yield waiting.result()
            waiting = upcoming
        if waiting is not None:
            yield waiting.result()


def _step(
    matcher: Matcher,
    optimiser: torch.optim.Optimizer,
    batch: Any,
    params: TrainingParams,
    progress: Progress,
    tracker: Tracker,
) -> None:
    """Do one step, or count it as skipped where its loss or gradient is not finite."""
    lr = set_lr(optimiser, scaled_lr(params.lr_at_32, params.batch), progress.step, params)
    matcher.train()
    optimiser.zero_grad(set_to_none=True)
    losses = matcher.loss(batch)
    norm = descend(
        optimiser,
        losses.total,
        matcher.trainable(),
        progress,
        clip=params.clip,
        max_skipped=params.max_skipped,
        remedy="lower lr_at_32 or look at the data (the last good state was kept)",
    )
    if norm is None:
        return
    values = {
        "train/loss": float(losses.total.detach()),
        "train/lr": lr,
        "train/norm": norm,
    }
    values |= {f"train/{name}": value for name, value in losses.parts.items()}
    if progress.step % LOG_EVERY == 0:
        progress.log(values, progress.step)
        tracker.metrics(values, progress.step)


def _validate(
    matcher: Matcher,
    validation: tuple[TrainingData, list[Item]],
    params: TrainingParams,
    progress: Progress,
    tracker: Tracker,
    scratch: Path,
) -> None:
    """Log the validation losses; weights that are the best so far are kept."""
    values = evaluate(matcher, *validation, batch=params.batch)
    if not math.isfinite(values["val/loss"]):
        raise TrainingError(
            f"the validation loss at step {progress.step} is not finite; look at the val pairs, or lower lr_at_32 "
            f"(checkpoints are in {scratch})"
        )
    progress.log(values, progress.step)
    tracker.metrics(values, progress.step)
    loss = values["val/loss"]
    if progress.best is None or loss < progress.best[0]:
        progress.best = (loss, progress.step)
        save_weights(scratch / _BEST, matcher.state_dict())


@torch.no_grad()
def evaluate(matcher: Matcher, data: TrainingData, items: list[Item], *, batch: int) -> dict[str, float]:
    """Return the mean losses over fixed samples, as ``val/<name>``."""
    matcher.eval()
    sums: dict[str, float] = {}
    for start in range(0, len(items), batch):
        some = items[start : start + batch]
        losses = matcher.loss(data.collate([data.sample(item) for item in some]))
        for name, value in {"loss": float(losses.total), **losses.parts}.items():
            sums[f"val/{name}"] = sums.get(f"val/{name}", 0.0) + value * len(some)
    return {name: value / len(items) for name, value in sums.items()}


def summary(fitted: Fitted) -> Mapping[str, float]:
    """Return what a card may say of a training: counts, no clock."""
    return {"steps": fitted.steps, "skipped": fitted.skipped, "best_step": fitted.final["best/step"]}
