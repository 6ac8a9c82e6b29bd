"""A learner of a brightness, on drawn views: in one process, or as one of those of torchrun."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path

import cv2
import torch
from in_memory import InMemory
from joint_settings import JOINT
from skimage import data
from torch import nn

from minima_core.tracking import NullTracker
from minima_core.training import view_loop
from minima_core.training.distributed import joined
from minima_core.training.view_loop import Learner, ViewTraining, fit_views
from minima_core.training.views import Album, draw
from minima_core.types import RGB

SETTINGS = {name: JOINT[name] for name in ViewTraining.model_fields} | {
    "batch": 5,
    "micro_batch": 5,
    "clip": 1e6,
    "view": (64, 64),
    "keypoints": (8, 16),
    "parallax_share": 0.0,
    "validation_pairs": 10,
}


class Gain(Learner):
    """Says how bright the negative of a view is; the loss is a mean over pairs."""

    JUDGED = "off"

    def __init__(self):
        super().__init__()
        self.gain = nn.Linear(3, 3)
        with torch.no_grad():
            self.gain.weight.copy_(torch.eye(3))
            self.gain.bias.zero_()

    @property
    def kept(self):
        return self.gain

    def groups(self):
        return [{"params": list(self.gain.parameters()), "initial_lr": 0.1}]

    def loss(self, batch, random):
        levels = batch.views.mean((-2, -1))
        off = (self.gain(levels) - (1 - levels)).square().mean()
        return off, {"off": float(off.detach())}


def album():
    """Return two photographs, one of which has a negative."""
    pictures = [cv2.resize(p, (160, 128), interpolation=cv2.INTER_AREA) for p in (data.astronaut(), data.chelsea())]
    return Album([InMemory({RGB: pictures, "negative": [255 - pictures[0], None]})])


def run(scratch, **changes):
    """Train and return the learner and the account of it."""
    learner = Gain()
    params = ViewTraining(**SETTINGS | changes)
    fitted = fit_views(learner, album(), album(), params, seed=0, tracker=NullTracker(), scratch=scratch)
    return learner, fitted


def main(out: Path) -> None:
    """Train on several processes; each writes its curves, its weights and how many pairs it drew for training."""
    drawn = []

    def counting(*args, pairs=None, **options):
        drawn.extend(pairs or [])
        return draw(*args, pairs=pairs, **options)

    view_loop.draw = counting
    with joined("cpu", nullcontext(NullTracker())) as (group, _):
        learner, fitted = run(out / "scratch")
    weights = learner.kept.weight.flatten().tolist()
    (out / f"{group.rank}.json").write_text(
        json.dumps({"curves": fitted.curves, "weights": weights, "pairs": len(drawn)})
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
