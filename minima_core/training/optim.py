"""The optimiser and how its learning rates run, as settings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from minima_core.config import Section
from minima_core.errors import TrainingError


class Optimiser(Section):
    """Which optimiser, and how fast each group of a matcher's parameters learns."""

    kind: Literal["adam", "adamw"]
    weight_decay: Annotated[float, Field(ge=0)]  # adamw's shrinks the weights, adam's adds to their gradient
    lr: dict[str, Annotated[float, Field(gt=0)]]  # by the names of ``Matcher.groups``, at a batch of ``lr_batch``
    lr_batch: Annotated[int, Field(gt=0)]  # pairs; the rates are scaled to the batch in use


class Falling(Section):
    """Linear warm-up, constant, then exponential down to ``decay_to``, as glue-factory trains LightGlue."""

    warmup: Annotated[int, Field(ge=0)]  # steps
    decay_from: Annotated[float, Field(ge=0, le=1)]  # share of the steps after which the rate falls
    decay_to: Annotated[float, Field(gt=0, le=1)]  # factor of the rate at the end

    def factor(self, step: int, steps: int) -> float:
        """Return what the learning rate is multiplied by at ``step`` (from 0) of ``steps``."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        start = self.decay_from * steps
        if step < start:
            return 1.0
        return math.exp(math.log(self.decay_to) * (step - start) / max(steps - start, 1.0))


class Exponential(Falling):
    """``Falling``, as one of the schedules to choose from."""

    kind: Literal["exponential"]


class MultiStep(Section):
    """Linear warm-up, then a fall at each milestone, as LoFTR and RoMa are trained (spec/training.md 4.5 and 5.5)."""

    kind: Literal["multi_step"]
    warmup: Annotated[int, Field(ge=0)]  # steps
    warmup_from: Annotated[float, Field(ge=0, le=1)]  # factor of the rate at the first step
    milestones: list[Annotated[int, Field(gt=0)]]  # steps
    gamma: Annotated[float, Field(gt=0, le=1)]  # factor at each milestone

    def factor(self, step: int, steps: int) -> float:  # noqa: ARG002 (milestones are absolute)
        """Return what the learning rate is multiplied by at ``step`` (from 0)."""
        if step < self.warmup:
            return self.warmup_from + (1 - self.warmup_from) * step / self.warmup
        return self.gamma ** sum(step >= milestone for milestone in self.milestones)


class Cosine(Section):
    """Linear warm-up, then half a cosine down to ``decay_to``."""

    kind: Literal["cosine"]
    warmup: Annotated[int, Field(ge=0)]  # steps
    decay_to: Annotated[float, Field(ge=0, le=1)]  # factor of the rate at the end

    def factor(self, step: int, steps: int) -> float:
        """Return what the learning rate is multiplied by at ``step`` (from 0) of ``steps``."""
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        done = (step - self.warmup) / max(steps - self.warmup, 1)
        return self.decay_to + (1 - self.decay_to) * (1 + math.cos(math.pi * done)) / 2


Schedule = Annotated[Exponential | MultiStep | Cosine, Field(discriminator="kind")]


def adam(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Adam:
    """Return Adam without weight decay, as glue-factory trains LightGlue."""
    # one order of operations, whatever the version prefers
    return torch.optim.Adam([{"params": list(parameters), "initial_lr": lr}], lr=lr, foreach=False)


def optimiser_for(
    groups: Mapping[str, list[nn.Parameter]], settings: Optimiser, batch: int
) -> torch.optim.Adam | torch.optim.AdamW:
    """Return the optimiser of a matcher's groups of parameters; ``initial_lr`` of each is its rate at factor 1.

    Raises:
        TrainingError: if the learning rates are not those of the groups.
    """
    if set(groups) != set(settings.lr):
        raise TrainingError(
            f"optimiser.lr in params.yaml is for {', '.join(sorted(settings.lr))}; this matcher's groups of parameters "
            f"are {', '.join(sorted(groups))}"
        )
    rates = {name: scaled_lr(settings.lr[name], batch, settings.lr_batch) for name in groups}
    given = [{"params": groups[name], "lr": rate, "initial_lr": rate} for name, rate in rates.items()]
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.kind]
    return kind(given, weight_decay=settings.weight_decay, foreach=False)


def scaled_lr(lr: float, batch: int, lr_batch: int) -> float:
    """Return the learning rate of a batch from that of ``lr_batch`` (spec/training.md sections 3.5, 4.5 and 5.5)."""
    return lr * batch / lr_batch
