"""The loop over drawn views: parts of a step count as the step does, and an average of weights is what is kept."""

import pytest
import torch
from view_learner import SETTINGS, album, run

from minima_core.training.average import Average
from minima_core.training.view_loop import ViewTraining
from minima_core.training.views import draw

CPU = torch.device("cpu")
FIELDS = ("views", "twins", "inside", "H_view", "depth", "K")


@pytest.mark.parametrize("numbers", [[0], [1, 3], [4, 2]])
def test_a_pair_does_not_depend_on_which_others_are_drawn(numbers):
    params = ViewTraining(**SETTINGS)
    whole, some = (draw(album(), params, 0, 2, device=CPU, pairs=pairs) for pairs in (None, numbers))
    sides = [*numbers, *(n + params.batch for n in numbers)]
    for name in FIELDS:
        assert torch.equal(getattr(some, name), getattr(whole, name)[sides]), name
    assert torch.equal(some.T_0to1, whole.T_0to1[numbers]) and some.keypoints == whole.keypoints


def test_pairs_of_a_batch_are_those_of_their_numbers():
    batch = draw(album(), ViewTraining(**SETTINGS), 0, 2, device=CPU)
    part = batch.of_pairs(1, 3)
    for name in FIELDS:
        assert torch.equal(getattr(part, name), getattr(batch, name)[[1, 2, 3, 6, 7, 8]]), name
    assert len(part.T_0to1) == 3


@pytest.mark.parametrize("size", [1, 2])
def test_a_step_in_parts_is_the_step(tmp_path, size):
    whole, account = run(tmp_path / "whole")
    parts, of_parts = run(tmp_path / "parts", micro_batch=size)
    assert torch.allclose(whole.kept.weight, parts.kept.weight, rtol=1e-4)
    for name in ("train/loss", "val/loss"):
        assert of_parts.curves[name] == [(step, pytest.approx(v, rel=1e-4)) for step, v in account.curves[name]]


def test_the_average_of_weights_is_validated_and_kept(tmp_path, monkeypatch):
    seen = []
    update = Average.update
    monkeypatch.setattr(Average, "update", lambda self: (update(self), seen.append(self.network.weight.clone())))
    learner, _ = run(tmp_path, ema=0.5, steps=3)
    mean = torch.eye(3)
    for weight in seen:
        mean = torch.lerp(mean, weight.detach(), 0.5)
    assert len(seen) == 3 and torch.allclose(learner.kept.weight, mean, atol=1e-6)
    assert not torch.allclose(learner.kept.weight, seen[-1], atol=1e-4)


def test_a_cut_run_with_an_average_ends_with_the_same_bits(tmp_path):
    whole, _ = run(tmp_path / "whole", ema=0.9, decay_from=1.0)
    run(tmp_path / "cut", ema=0.9, decay_from=1.0, steps=3)
    resumed, _ = run(tmp_path / "cut", ema=0.9, decay_from=1.0)
    assert torch.equal(whole.kept.weight, resumed.kept.weight)
