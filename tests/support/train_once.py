"""Trains on a tiny world as a process of its own, which a test can kill, or as one of those of torchrun."""

import json
import logging
import sys
from contextlib import nullcontext
from pathlib import Path

from plane_world import training_settings

from minima_core.io.weights import state_digest
from minima_core.matchers.base import Matcher
from minima_core.models import read_model
from minima_core.tracking import NullTracker
from minima_core.training.distributed import joined
from minima_core.training.loop import TrainingParams
from minima_core.training.run import train
from minima_core.training.steps import Fitted


def main(world: Path, out: Path) -> None:
    """Write the digest of the trained weights and the curves to ``out/result.json``."""
    matcher, _ = read_model(world / "parent")
    with joined("cpu", nullcontext(NullTracker())) as (group, _):
        fitted = _train(matcher, world, out)
    if group.leads:
        result = {"weights": state_digest(matcher.state_dict()), "curves": fitted.curves}
        (out / "result.json").write_text(json.dumps(result))


def _train(matcher: Matcher, world: Path, out: Path) -> Fitted:
    return train(
        matcher,
        TrainingParams.model_validate(training_settings(steps=12, checkpoint_every=2, validate_every=4)),
        index=world / "index",
        raw=world / "raw",
        modalities=world / "modalities",
        names=["infrared", "event", "sketch"],
        seed=0,
        workers=2,
        cache=out / "features",
        scratch=out / "scratch",
        tracker=NullTracker(),
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
