"""The training loop on a matcher of two numbers: resuming, skipping, choosing the best."""

import math

import line_matcher
import pytest
import torch
from line_matcher import VALIDATION, Line, Points, optimiser, run
from torch import nn

from minima_core.errors import TrainingError
from minima_core.io.weights import state_digest
from minima_core.matchers.base import Losses
from minima_core.tracking import NullTracker
from minima_core.training import checkpoint
from minima_core.training.average import Average
from minima_core.training.steps import update

CONSTANT = {"kind": "exponential", "warmup": 2, "decay_from": 0.5, "decay_to": 1.0}


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


def test_everything_that_a_step_depends_on_is_resumed(tmp_path):
    ways = {"ema": 0.8, "micro_batch": 1, "precision": "float16", "checkpoint_every": 3, "learned_share": 0.5}
    undisturbed, whole = run(tmp_path / "a", **ways)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "b", Points(fail_at=41), **ways)
    resumed, fitted = run(tmp_path / "b", **ways)
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


class Normed(Line):
    """Fits y after a batch norm, whose statistics a forward pass changes."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(1)

    def loss(self, batch):
        x, y = batch
        return super().loss((x, self.norm(y[:, None])[:, 0]))


def test_step_that_is_not_finite_leaves_no_trace_in_statistics(tmp_path, monkeypatch):
    monkeypatch.setattr(line_matcher, "Line", Normed)
    matcher, fitted = run(tmp_path, Points(poison={3}), steps=12, batch=4, max_skipped=12)
    assert 0 < fitted.skipped < 12
    assert matcher.norm.running_mean.isfinite() and matcher.norm.running_mean != 0
    _, weights, _ = checkpoint.load(tmp_path)
    assert all(bool(w.isfinite().all()) for w in weights.values())
    assert weights["norm.num_batches_tracked"] == 2 * (12 - fitted.skipped)  # two micro batches a step


def test_averages_of_statistics_can_be_followed_like_the_statistics():
    norm = nn.BatchNorm1d(2)
    average = Average(norm, 0.5)
    norm.running_mean.fill_(4.0)
    average.update()
    mean, *others = average.buffers()
    assert mean.tolist() == [2.0, 2.0] and len(others) == 2
    mean.zero_()  # as a broadcast overwrites it
    assert average.state()["average/running_mean"].tolist() == [0.0, 0.0]
    assert Average(norm, 0.0).buffers() == []


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


@pytest.mark.parametrize("name", ["model.safetensors", "optimiser.pt"])
def test_a_bit_that_flipped_in_a_checkpoint_is_not_trained_on(tmp_path, name):
    run(tmp_path)
    path = tmp_path / "step-00000030" / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(TrainingError, match=rf"step-00000030 is damaged \({name} is not what was written\)"):
        run(tmp_path)


def test_a_bit_that_flipped_in_the_best_weights_is_not_published(tmp_path):
    run(tmp_path)
    path = tmp_path / "best.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1  # of a weight
    path.write_bytes(data)
    with pytest.raises(TrainingError, match=r"best\.safetensors cannot be read \(it is not what was written\); remove"):
        run(tmp_path)


def test_a_checkpoint_with_other_json_is_one_line(tmp_path):
    run(tmp_path)
    (tmp_path / "step-00000030" / "progress.json").write_text('{"curves": 1}')
    with pytest.raises(TrainingError, match="step-00000030 is damaged"):
        run(tmp_path)


def test_damaged_checkpoint_is_one_line(tmp_path):
    run(tmp_path)
    (tmp_path / "step-00000030" / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(TrainingError, match=r"step-00000030 is damaged .* remove this folder"):
        run(tmp_path)


def test_only_the_last_checkpoints_are_kept(tmp_path):
    run(tmp_path)
    assert [p.name for p in sorted(tmp_path.glob("step-*"))] == ["step-00000028", "step-00000030"]


def test_gradients_of_micro_batches_add_up_to_the_batch_s(tmp_path):
    whole, _ = run(tmp_path / "a", batch=5, micro_batch=5)
    for size in (1, 2, 4):
        parts, _ = run(tmp_path / str(size), batch=5, micro_batch=size)
        assert parts.numbers() == pytest.approx(whole.numbers(), rel=1e-5)


def test_average_of_the_weights_is_what_is_validated_and_kept(tmp_path):
    plain, _ = run(tmp_path / "a", steps=4, validate_every=4, optimiser=optimiser(0.4), schedule=CONSTANT)
    mean, fitted = run(tmp_path / "b", steps=4, validate_every=4, optimiser=optimiser(0.4), schedule=CONSTANT, ema=0.9)
    assert 0 < mean.numbers()[0] < plain.numbers()[0]  # it starts at the weights of the beginning and follows
    loss = mean.loss(Points().collate([Points().sample(item) for item in VALIDATION])).total
    assert fitted.curves["val/loss"][-1] == (4, pytest.approx(loss.item()))


def test_only_a_share_of_the_way_is_gone_where_less_is_asked_for(tmp_path):
    whole, fitted = run(tmp_path / "a")
    part, same = run(tmp_path / "b", learned_share=0.25)
    assert same == fitted  # the training is the same
    for before, learned, left in zip(Line().numbers(), whole.numbers(), part.numbers(), strict=True):
        assert learned != before
        assert left == pytest.approx(before + 0.25 * (learned - before), rel=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_forward_pass_is_in_the_precision_asked_for(tmp_path, monkeypatch, precision):
    whole, seen = Line.loss, set()

    def loss(self, batch):
        seen.add(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else torch.float32)
        return whole(self, batch)

    monkeypatch.setattr(Line, "loss", loss)
    matcher, _ = run(tmp_path, precision=precision)
    assert seen == {getattr(torch, precision)}
    assert matcher.a.dtype == torch.float32


def test_overflow_of_half_precision_lowers_the_scale_before_it_counts():
    matcher, progress = Line(), checkpoint.Progress(scale=4.0)
    step = {"finite": True, "clip": 1.0, "max_skipped": 9, "remedy": ""}
    sgd = torch.optim.SGD(matcher.parameters(), lr=1.0)
    for scale, skipped in [(2.0, 0), (1.0, 0), (1.0, 1)]:
        matcher.a.grad = torch.tensor(math.inf)
        assert update(sgd, [matcher.a], progress, **step) is None
        assert (progress.scale, progress.skipped, matcher.numbers()[0]) == (scale, skipped, 0.0)
    assert progress.step == 3


def test_gradient_in_half_precision_is_scaled_back(tmp_path):
    half, _ = run(tmp_path / "a", precision="float16")
    single, _ = run(tmp_path / "b")
    assert half.numbers() == pytest.approx(single.numbers(), rel=1e-5)  # nothing in a line is rounded by autocast


def test_networks_are_compiled_where_told(tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(Line, "compile", lambda self: compiled.append(self))
    run(tmp_path / "a", steps=1)
    assert compiled == []
    matcher, _ = run(tmp_path / "b", steps=1, compile=True)
    assert compiled == [matcher]
