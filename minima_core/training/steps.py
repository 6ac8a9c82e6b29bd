"""What every training here does alike: reproducible kernels, continuing, one guarded step, the account at the end."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, Self, TypeVar

import torch
from torch import nn

from minima_core.errors import TrainingError
from minima_core.progress import track
from minima_core.tracking import Tracker
from minima_core.training import checkpoint
from minima_core.training.average import Average
from minima_core.training.checkpoint import Progress
from minima_core.training.distributed import Group

logger = logging.getLogger(__name__)

J = TypeVar("J")
R = TypeVar("R")
BEST = "best.safetensors"


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


N = TypeVar("N", bound=nn.Module)


@dataclass
class Run(Generic[N]):
    """A training at work, in one process or several.

    Attributes:
        network: whose weights are trained, validated and kept.
        optimiser: of them.
        average: of them; what is validated and kept where there is one.
        progress: so far.
        group: the processes.
        tracker: gets the curves.
        scratch: folder of the checkpoints.
    """

    network: N
    optimiser: torch.optim.Optimizer
    average: Average
    progress: Progress
    group: Group
    tracker: Tracker
    scratch: Path

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def log(self, values: Mapping[str, float]) -> None:
        """Add values of this step to the curves."""
        self.progress.log(values, self.progress.step)
        if self.group.leads:
            self.tracker.metrics(values, self.progress.step)

    def follow_leader(self) -> None:
        """Take over the statistics of the process that writes them down; a resumed run goes on from those."""
        self.group.follow([*self.network.buffers(), *self.average.buffers()])

    def save(self) -> None:
        """Write a checkpoint, and go on when it is there."""
        self.follow_leader()
        if self.group.leads:
            checkpoint.save(self.scratch, self.progress, self.average.state(), self.optimiser)
        self.group.wait()


class Rhythm(Protocol):
    """How long a training is, and what is done every so many steps of it."""

    @property
    def steps(self) -> int:
        """All of them."""

    @property
    def validate_every(self) -> int:
        """After so many, and at both ends."""

    @property
    def checkpoint_every(self) -> int:
        """After so many, and at both ends."""


def go_through(
    run: Run[Any], batches: Iterable[J], step: Callable[[J], None], validate: Callable[[], None], rhythm: Rhythm
) -> Fitted:
    """Do ``step`` with each of ``batches``, the steps that are left, and leave in the network its best weights."""
    for batch in track(batches, "training", total=rhythm.steps, done=run.progress.step):
        step(batch)
        if run.progress.step % rhythm.validate_every == 0 or run.progress.step == rhythm.steps:
            validate()
        if run.progress.step % rhythm.checkpoint_every == 0 or run.progress.step == rhythm.steps:
            run.save()
    load_best(run.scratch, run.network)
    return Fitted.of(run.progress)


def add(sums: dict[str, float], prefix: str, values: Mapping[str, float], weight: float) -> None:
    """Add values, each times ``weight``, to the sums of their names after ``prefix``."""
    for name, value in values.items():
        sums[prefix + name] = sums.get(prefix + name, 0.0) + value * weight


def one_ahead(make: Callable[[J], R], jobs: Iterable[J]) -> Iterator[R]:
    """Yield ``make`` of each job, in their order; a thread makes the next one while the last is worked with."""
    with ThreadPoolExecutor(1) as pool:
        waiting = None
        for job in jobs:
            upcoming = pool.submit(make, job)
            if waiting is not None:
                yield waiting.result()
            waiting = upcoming
        if waiting is not None:
            yield waiting.result()


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
    # it costs a seventh of a step, and nothing here reads what it has not written
    memory.fill_uninitialized_memory = False
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


def keep_best(scratch: Path, network: nn.Module, loss: float, progress: Progress, *, remedy: str, leads: bool) -> None:
    """Keep a network's weights beside the checkpoints where their validation ``loss`` is the lowest so far.

    Args:
        scratch: folder of the checkpoints.
        network: whose weights the loss is of.
        loss: of the validation.
        progress: holds the lowest loss and its step.
        remedy: what to do where the loss is not finite.
        leads: whether this process is the one that writes.

    Raises:
        TrainingError: if the loss is not finite.
    """
    if not math.isfinite(loss):
        what = f"the validation loss at step {progress.step} is not finite"
        raise TrainingError(f"{what}; {remedy} (checkpoints are in {scratch})")
    if progress.best is None or loss < progress.best[0]:
        progress.best = (loss, progress.step)
        if leads:
            checkpoint.keep_weights(scratch / BEST, network.state_dict())


def load_best(scratch: Path, network: nn.Module) -> None:
    """Give a network the weights that ``keep_best`` kept.

    Raises:
        TrainingError: if they are missing or damaged.
    """
    network.load_state_dict(checkpoint.weights(scratch / BEST))


def set_lr(optimiser: torch.optim.Optimizer, factor: float) -> float:
    """Give every group of the optimiser ``factor`` times its ``initial_lr``, and return the first one's."""
    for group in optimiser.param_groups:
        group["lr"] = group["initial_lr"] * factor
    return float(optimiser.param_groups[0]["lr"])


def remember_statistics(module: nn.Module) -> Callable[[], None]:
    """Return what puts the statistics of a module's batch norms back to what they are now.

    A forward pass has changed them by the time that its loss turns out not to be finite.
    """
    norms = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    now = [buffer for norm in norms for buffer in norm.buffers()]
    before = [buffer.clone() for buffer in now]

    def put_back() -> None:
        for buffer, old in zip(now, before, strict=True):
            buffer.copy_(old)

    return put_back


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
    """Do one step down a scalar loss: ``update`` after its gradient, the optimiser's gradients being zero before."""
    finite = bool(loss.isfinite())
    if finite:
        torch.autograd.backward(loss)
    return update(optimiser, parameters, progress, finite=finite, clip=clip, max_skipped=max_skipped, remedy=remedy)


def update(
    optimiser: torch.optim.Optimizer,
    parameters: Iterable[nn.Parameter],
    progress: Progress,
    *,
    finite: bool,
    clip: float,
    max_skipped: int,
    remedy: str,
) -> float | None:
    """Do one step along the gradient and return its norm; None for a step that changed nothing.

    A step whose loss or gradient is not finite is counted and skipped. One whose gradient alone is not, of a loss that
    was scaled up for half precision, halves the scale and does not count.

    Args:
        optimiser: of ``parameters``.
        parameters: with gradients, which are clipped to the norm ``clip``.
        progress: counts the steps and holds the scale.
        finite: whether the loss is.
        clip: largest norm of the gradient.
        max_skipped: how many steps may be skipped.
        remedy: what to do when more are.

    Raises:
        TrainingError: if more than ``max_skipped`` steps were skipped.
    """
    progress.step += 1
    norm = float(nn.utils.clip_grad_norm_(parameters, clip)) if finite else math.nan
    if math.isfinite(norm):
        optimiser.step()
        return norm
    if finite and progress.scale > 1:
        progress.scale /= 2
        logger.info("step %d: half precision overflowed, the loss is scaled by %g now", progress.step, progress.scale)
        return None
    progress.skipped += 1
    logger.warning("step %d: the loss or its gradient is not finite, the step was skipped", progress.step)
    if progress.skipped > max_skipped:
        what = f"{progress.skipped} steps had a loss or gradient that is not finite"
        raise TrainingError(f"{what}, max_skipped is {max_skipped}; {remedy}")
    return None
