"""What every training here does alike: reproducible kernels, continuing, one guarded step, the account at the end."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from torch import nn

from minima_core.errors import TrainingError
from minima_core.training import checkpoint
from minima_core.training.checkpoint import Progress
from minima_core.training.optim import lr_factor

logger = logging.getLogger(__name__)


class Schedule(Protocol):
    """The settings of a learning rate, as ``lr_factor`` takes them."""

    @property
    def steps(self) -> int: ...  # noqa: D102, the name says it
    @property
    def warmup(self) -> int: ...  # noqa: D102
    @property
    def decay_from(self) -> float: ...  # noqa: D102
    @property
    def decay_to(self) -> float: ...  # noqa: D102


@dataclass(frozen=True)
class Fitted:
    """What a training did.

    Attributes:
        steps: that were done, those that were skipped among them.
        skipped: steps whose loss or gradient was not finite.
        curves: name -> (step, value) points.
        final: last values of the curves; ``best/step`` where the weights of the lowest validation loss were kept.
    """

    steps: int
    skipped: int
    curves: dict[str, list[tuple[int, float]]]
    final: dict[str, float]

    @classmethod
    def of(cls, progress: Progress) -> Self:
        """Return the account of a training that has come to its end."""
        final = {name: curve[-1][1] for name, curve in progress.curves.items()}
        if progress.best is not None:
            final["best/step"] = progress.best[1]
        return cls(progress.step, progress.skipped, progress.curves, final)


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


def resume(
    scratch: Path, optimiser: torch.optim.Optimizer, load: Callable[[Mapping[str, torch.Tensor]], object]
) -> Progress | None:
    """Continue from the last checkpoint: give ``load`` its weights and the optimiser its state; None without one.

    Raises:
        TrainingError: if the checkpoint is damaged.
    """
    state = checkpoint.load(scratch)
    if state is None:
        return None
    progress, weights, optimiser_state = state
    load(weights)
    optimiser.load_state_dict(optimiser_state)
    logger.info("continuing after step %d, found in %s", progress.step, scratch)
    return progress


def set_lr(optimiser: torch.optim.Optimizer, lr: float, step: int, schedule: Schedule) -> float:
    """Give the optimiser the learning rate of ``step`` (from 0), ``lr`` times its factor, and return it."""
    factor = lr_factor(
        step,
        steps=schedule.steps,
        warmup=schedule.warmup,
        decay_from=schedule.decay_from,
        decay_to=schedule.decay_to,
    )
    for group in optimiser.param_groups:
        group["lr"] = lr * factor
    return lr * factor


def descend(
    optimiser: torch.optim.Optimizer,
    loss: torch.Tensor,
    parameters: Iterable[nn.Parameter],
    progress: Progress,
    *,
    clip: float,
    max_skipped: int,
    remedy: str,
) -> float | None:
    """Do one step down a scalar loss and return the gradient's norm; None for a step that changed nothing.

    A step whose loss or gradient is not finite is counted and skipped.

    Args:
        optimiser: of ``parameters``, its gradients zero.
        loss: scalar.
        parameters: whose gradient is clipped to the norm ``clip``.
        progress: counts the steps.
        clip: largest norm of the gradient.
        max_skipped: how many steps may be skipped.
        remedy: what to do when more are.

    Raises:
        TrainingError: if more than ``max_skipped`` steps were skipped.
    """
    progress.step += 1
    norm = math.nan
    if bool(loss.isfinite()):
        torch.autograd.backward(loss)
        norm = float(nn.utils.clip_grad_norm_(parameters, clip))
    if math.isfinite(norm):
        optimiser.step()
        return norm
    progress.skipped += 1
    logger.warning("step %d: the loss or its gradient is not finite, the step was skipped", progress.step)
    if progress.skipped > max_skipped:
        what = f"{progress.skipped} steps had a loss or gradient that is not finite"
        raise TrainingError(f"{what}, max_skipped is {max_skipped}; {remedy}")
    return None
