"""The training loop on a matcher of two numbers: resuming, skipping, choosing the best."""

import math
from dataclasses import dataclass, field

import pytest
import torch
from plane_world import training_settings
from torch import nn

from minima_core.data.sampling import Item
from minima_core.errors import TrainingError
from minima_core.io.weights import state_digest
from minima_core.licences import MIT
from minima_core.matchers.base import Losses, Matcher, Provenance
from minima_core.tracking import NullTracker
from minima_core.training import checkpoint
from minima_core.training.loop import TrainingParams, fit


class Line(Matcher):
    """Fits y = a x + b; its images are numbers."""

    def __init__(self):
        super().__init__(Matcher.Params(long_side=1, max_keypoints=1))
        self.a = nn.Parameter(torch.zeros(()))
        self.b = nn.Parameter(torch.zeros(()))

    def _match(self, features0, features1, max_keypoints):
        raise NotImplementedError

    def load_published(self):
        return Provenance({}, MIT)

    def training_data(self, pairs, *, max_keypoints, cache, workers):
        raise NotImplementedError

    def loss(self, batch):
        x, y = batch
        return Losses(((self.a * x + self.b - y) ** 2).mean(), {"a": float(self.a.detach())})


@dataclass
class Points:
    """y = 2 x + 1, and NaN for the pairs in ``poison``."""

    poison: set = field(default_factory=set)
    key: str = "points"
    read: list = field(default_factory=list)
    fail_at: int | None = None

    def sample(self, item):
        self.read.append(item.pair)
        if self.fail_at is not None and len(self.read) > self.fail_at:
            raise KeyboardInterrupt
        x = float(item.pair % 7)
        return x, math.nan if item.pair in self.poison else 2 * x + 1

    def collate(self, samples):
        return tuple(torch.tensor(column) for column in zip(*samples, strict=True))


CONSTANT = {"kind": "exponential", "warmup": 2, "decay_from": 0.5, "decay_to": 1.0}
VALIDATION = [Item(n, "rgb", "rgb") for n in range(5)]


def items(epoch):
    return [Item((n * 5 + epoch) % 11, "rgb", "rgb") for n in range(11)]


def optimiser(lr, **changes):
    return {"kind": "adam", "weight_decay": 0.0, "lr": {"all": lr}, "lr_batch": 32} | changes


def run(scratch, data=None, tracker=None, validation=None, **changes):
    matcher = Line()
    settings = {"steps": 30, "clip": 1e6, "validate_every": 10, "checkpoint_every": 4}
    settings |= {"optimiser": optimiser(0.8)}
    params = TrainingParams.model_validate(training_settings(**(settings | changes)))
    fitted = fit(
        matcher,
        data or Points(),
        items,
        (validation or Points(), VALIDATION),
        params,
        tracker=tracker or NullTracker(),
        scratch=scratch,
    )
    return matcher, fitted


def test_loss_falls(tmp_path):
    _, fitted = run(tmp_path, steps=60)
    curve = dict(fitted.curves["val/loss"])
    assert curve[0] == pytest.approx(sum((2 * x + 1) ** 2 for x in range(5)) / 5)
    assert curve[60] < curve[0] / 4
    assert list(curve) == [0, 10, 20, 30, 40, 50, 60]
    assert fitted.steps == 60


@pytest.mark.parametrize("reads", [1, 15, 16, 17, 44])
def test_interrupted_and_resumed_ends_with_the_same_bits(tmp_path, reads):
    undisturbed, whole = run(tmp_path / "a")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", Points(fail_at=reads))
    resumed, fitted = run(tmp_path / "b", Points())
    assert state_digest(resumed.state_dict()) == state_digest(undisturbed.state_dict())
    assert fitted == whole


def test_resumed_run_does_not_start_over(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Points(fail_at=44))
    data = Points()
    run(tmp_path, data)
    assert len(data.read) == 20  # steps 21 to 30, two samples each; step 20 was the last checkpoint


def test_step_that_is_not_finite_changes_nothing_and_is_counted(tmp_path):
    matcher, fitted = run(tmp_path, Points(poison={3}), steps=12, max_skipped=12)
    assert 0 < fitted.skipped < 12
    assert all(bool(p.isfinite()) for p in matcher.parameters())


def test_too_many_such_steps_end_the_run_and_keep_the_last_good_state(tmp_path):
    with pytest.raises(TrainingError, match=r"3 steps .* max_skipped is 2; lower optimiser.lr"):
        run(tmp_path, Points(poison=set(range(11))), max_skipped=2)
    progress, weights, _ = checkpoint.load(tmp_path)
    assert progress.step == 0
    assert all(bool(w.isfinite().all()) for w in weights.values())


def test_validation_loss_that_is_not_finite_ends_the_run_and_is_never_the_best(tmp_path):
    with pytest.raises(TrainingError, match=r"validation loss at step 0 is not finite; look at the val pairs"):
        run(tmp_path, validation=Points(poison={3}))
    assert list(tmp_path.glob("*")) == []
    poisoned = Points()
    tracker = NullTracker()
    tracker.metrics = lambda values, step: poisoned.poison.add(3) if step == 15 else None
    with pytest.raises(TrainingError, match="validation loss at step 20 is not finite"):
        run(tmp_path, validation=poisoned, tracker=tracker)
    progress, _, _ = checkpoint.load(tmp_path)
    assert progress.best[1] == 10 and math.isfinite(progress.best[0])


def test_part_of_a_loss_that_is_not_finite_is_left_out_of_the_curves(tmp_path, monkeypatch):
    whole = Line.loss
    monkeypatch.setattr(Line, "loss", lambda self, batch: Losses(whole(self, batch).total, {"share": math.nan}))
    _, fitted = run(tmp_path)
    assert "train/loss" in fitted.curves and "train/share" not in fitted.curves


def test_best_weights_win_over_the_last(tmp_path):
    wild, fitted = run(tmp_path, optimiser=optimiser(30.0), schedule=CONSTANT, steps=20, validate_every=1)
    best = min(value for _, value in fitted.curves["val/loss"])
    assert fitted.final["val/loss"] > best
    loss = wild.loss(Points().collate([Points().sample(item) for item in VALIDATION])).total
    assert loss.item() == pytest.approx(best)
    assert dict(fitted.curves["val/loss"])[int(fitted.final["best/step"])] == best


def test_gradient_is_clipped(tmp_path):
    _, fitted = run(tmp_path, clip=1e-3, optimiser=optimiser(1e-3))
    assert max(norm for _, norm in fitted.curves["train/norm"]) > 1e-3  # what is logged is the norm before


class Notes(NullTracker):
    """Keeps the metrics."""

    def __init__(self):
        self.seen = []

    def metrics(self, values, step=None):
        self.seen.append((step, dict(values)))


def test_curves_reach_the_tracker(tmp_path):
    notes = Notes()
    _, fitted = run(tmp_path, tracker=notes)
    assert [(step, row["val/loss"]) for step, row in notes.seen if "val/loss" in row] == fitted.curves["val/loss"]


def test_threads_and_determinism_are_put_back(tmp_path):
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    run(tmp_path, threads=2)
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before


def test_damaged_checkpoint_is_one_line(tmp_path):
    run(tmp_path)
    (tmp_path / "step-00000030" / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(TrainingError, match=r"step-00000030 is damaged .* remove this folder"):
        run(tmp_path)


def test_only_the_last_checkpoints_are_kept(tmp_path):
    run(tmp_path)
    assert [p.name for p in sorted(tmp_path.glob("step-*"))] == ["step-00000028", "step-00000030"]
