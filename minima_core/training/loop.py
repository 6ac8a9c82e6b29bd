"""The one training loop: every matcher, pre-training and fine-tuning alike.

What is guaranteed: with the same data, parameters, seed, machine and torch, a run that was killed and resumed any
number of times ends with the same bits as an undisturbed one. The number of threads is part of the parameters because
sums over a batch are split among them; the number of workers is not, because it decides only who computes what.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
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
from minima_core.training.optim import adam, lr_factor, scaled_lr

logger = logging.getLogger(__name__)


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


@dataclass(frozen=True)
class Fitted:
    """What a training did; the matcher holds the weights of the lowest validation loss."""

    steps: int
    skipped: int
    curves: dict[str, list[tuple[int, float]]]
    final: dict[str, float]


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
        progress = _resume(matcher, optimiser, scratch)
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
    final = {name: curve[-1][1] for name, curve in progress.curves.items()}
    assert progress.best is not None
    final["best/step"] = progress.best[1]
    return Fitted(progress.step, progress.skipped, progress.curves, final)


_BEST = "best.safetensors"
LOG_EVERY = 5  # steps


@contextmanager
def deterministic(threads: int) -> Iterator[None]:
    """Fix the number of threads and ask for reproducible kernels; both are put back."""
    memory: Any = torch.utils.deterministic
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        memory.fill_uninitialized_memory,
    )
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = (
        False  # costs a seventh of a step, and nothing here reads what it has not written
    )
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        memory.fill_uninitialized_memory = before[2]


def _resume(matcher: Matcher, optimiser: torch.optim.Optimizer, scratch: Path) -> Progress | None:
    state = checkpoint.load(scratch)
    if state is None:
        return None
    progress, weights, optimiser_state = state
    matcher.load_state_dict(weights)
    optimiser.load_state_dict(optimiser_state)
    logger.info("continuing after step %d, found in %s", progress.step, scratch)
    return progress


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
    factor = lr_factor(
        progress.step,
        steps=params.steps,
        warmup=params.warmup,
        decay_from=params.decay_from,
        decay_to=params.decay_to,
    )
    for group in optimiser.param_groups:
        group["lr"] = scaled_lr(params.lr_at_32, params.batch) * factor
    matcher.train()
    optimiser.zero_grad(set_to_none=True)
    losses = matcher.loss(batch)
    progress.step += 1
    norm = math.nan
    if bool(losses.total.isfinite()):
        torch.autograd.backward(losses.total)
        norm = float(torch.nn.utils.clip_grad_norm_(matcher.trainable(), params.clip))
    if not math.isfinite(norm):
        progress.skipped += 1
        logger.warning("step %d: the loss or its gradient is not finite, the step was skipped", progress.step)
        if progress.skipped > params.max_skipped:
            raise TrainingError(
                f"{progress.skipped} steps had a loss or gradient that is not finite, max_skipped is "
                f"{params.max_skipped}; lower lr_at_32 or look at the data (the last good state was kept)"
            )
        return
    optimiser.step()
    values = {
        "train/loss": float(losses.total.detach()),
        "train/lr": optimiser.param_groups[0]["lr"],
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
