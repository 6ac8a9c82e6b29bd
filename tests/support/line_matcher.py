"""A matcher of two numbers, for the training loop; as a program, it trains as one of the processes of torchrun."""

from __future__ import annotations

import json
import math
import sys
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from plane_world import training_settings
from torch import nn

from minima_core.data.sampling import Item
from minima_core.licences import MIT, Licence
from minima_core.matchers.base import Losses, Matcher, Provenance
from minima_core.tracking import NullTracker, Tracker
from minima_core.training.distributed import joined
from minima_core.training.loop import TrainingParams, fit
from minima_core.training.steps import Fitted

VALIDATION = [Item(n, "rgb", "rgb") for n in range(5)]


class Line(Matcher):
    """Fits y = a x + b; its images are numbers."""

    def __init__(self) -> None:
        super().__init__(Matcher.Params(long_side=1, max_keypoints=1))
        self.a = nn.Parameter(torch.zeros(()))
        self.b = nn.Parameter(torch.zeros(()))

    def numbers(self) -> list[float]:
        """Return a and b."""
        return [value.item() for value in self.state_dict().values()]

    def _match(self, features0: Any, features1: Any, max_keypoints: int) -> Any:
        raise NotImplementedError

    def terms(self) -> Licence:
        return MIT

    def load_published(self) -> Provenance:
        return Provenance({}, MIT)

    def training_data(self, pairs: Any, *, max_keypoints: int, cache: Path, workers: int) -> Any:
        raise NotImplementedError

    def loss(self, batch: Any) -> Losses:
        x, y = batch
        return Losses(((self.a * x + self.b - y) ** 2).mean(), {"a": float(self.a.detach())})


@dataclass
class Points:
    """y = 2 x + 1, and NaN for the pairs in ``poison``."""

    poison: set[int] = field(default_factory=set)
    key: str = "points"
    read: list[int] = field(default_factory=list)
    fail_at: int | None = None

    def sample(self, item: Item) -> tuple[float, float]:
        self.read.append(item.pair)
        if self.fail_at is not None and len(self.read) > self.fail_at:
            raise KeyboardInterrupt
        x = float(item.pair % 7)
        return x, math.nan if item.pair in self.poison else 2 * x + 1

    def collate(self, samples: list[tuple[float, float]]) -> tuple[torch.Tensor, ...]:
        return tuple(torch.tensor(column) for column in zip(*samples, strict=True))

    def close(self) -> None:
        pass


def items(epoch: int) -> list[Item]:
    """Return eleven samples, in an order of the epoch's own."""
    return [Item((n * 5 + epoch) % 11, "rgb", "rgb") for n in range(11)]


def optimiser(lr: float) -> dict[str, object]:
    """Return the settings of Adam at a rate."""
    return {"kind": "adam", "weight_decay": 0.0, "lr": {"all": lr}, "lr_batch": 32}


def run(
    scratch: Path,
    data: Points | None = None,
    tracker: Tracker | None = None,
    validation: Points | None = None,
    **changes: object,
) -> tuple[Line, Fitted]:
    """Train a line for 30 steps."""
    matcher = Line()
    settings = {"steps": 30, "clip": 1e6, "validate_every": 10, "checkpoint_every": 4, "optimiser": optimiser(0.8)}
    fitted = fit(
        matcher,
        data or Points(),
        items,
        (validation or Points(), VALIDATION),
        TrainingParams.model_validate(training_settings(**(settings | changes))),
        tracker=tracker or NullTracker(),
        scratch=scratch,
    )
    return matcher, fitted


def main(out: Path, batch: int) -> None:
    """Train on several processes; each writes its curves, the number of its samples and the weights it ends with."""
    with joined("cpu", nullcontext(NullTracker())) as (group, _):
        data = Points()
        matcher, fitted = run(out / "scratch", data, batch=batch, micro_batch=2)
        result = {"curves": fitted.curves, "read": len(data.read), "weights": matcher.numbers()}
        (out / f"{group.rank}.json").write_text(json.dumps(result))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
