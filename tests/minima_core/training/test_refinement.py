"""The refiner's training: its targets are where the views' warp says, nothing else learns, and it resumes exactly."""

from dataclasses import replace

import cv2
import pytest
import torch
from in_memory import InMemory
from plane_world import random_matcher
from refiner_settings import REFINER
from skimage import data

from minima_core.errors import TrainingError
from minima_core.tracking import NullTracker
from minima_core.training import checkpoint
from minima_core.training.refinement import FARTHEST, Refinement, RefinerTraining, fit_refiner
from minima_core.training.views import Album, draw
from minima_core.types import RGB

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def album():
    pictures = [cv2.resize(p, (320, 256), interpolation=cv2.INTER_AREA) for p in (data.astronaut(), data.chelsea())]
    return Album([InMemory({RGB: pictures, "negative": [255 - picture for picture in pictures]})])


def test_points_lie_a_slip_away_from_where_the_warp_says(album):
    params = RefinerTraining(**REFINER | {"slip": (1.0, 2.0), "points": 20})
    batch = draw(album, params, 0, 0, device=CPU)
    refinement = Refinement(random_matcher(refine=True), params)
    found = list(refinement._off(batch, torch.Generator().manual_seed(0)))
    assert {side for _, side, *_ in found} == {0, 1}
    for b, side, kpts, places, away in found:
        there, seen = batch.of_pairs(b, 1).warp(kpts[None], side)
        torch.testing.assert_close(places + away, there[0])
        assert seen.all() and (away.norm(dim=-1) < FARTHEST).all() and len(kpts) <= 20
    deviation = torch.cat([away for *_, away in found]).std()
    assert 1 < float(deviation) < 2


def test_the_batch_of_a_pair_is_its_part_of_the_batch(album):
    batch = draw(album, RefinerTraining(**REFINER), 0, 0, device=CPU)
    points = torch.tensor([[[20.0, 30.0], [70.0, 50.0]]]).expand(len(batch.T_0to1), -1, -1)
    for side in (0, 1):
        whole, seen = batch.warp(points, side)
        for b in range(len(points)):
            own, own_seen = batch.of_pairs(b, 1).warp(points[b : b + 1], side)
            assert torch.equal(own[0], whole[b]) and torch.equal(own_seen[0], seen[b])


def test_a_batch_without_keypoints_has_a_loss_without_effect(album):
    params = RefinerTraining(**REFINER)
    refinement = Refinement(random_matcher(refine=True), params)
    batch = draw(album, params, 0, 0, device=CPU)
    total, parts = refinement.loss(replace(batch, inside=torch.zeros_like(batch.inside)), torch.Generator())
    total.backward()
    assert float(total.detach()) == 0 and parts["distance"] == 0
    assert all(float(p.grad.abs().sum()) == 0 for p in refinement.refiner.parameters() if p.grad is not None)


def trained(album, scratch, steps, **changes):
    matcher = random_matcher(refine=True)
    params = RefinerTraining(**REFINER | {"steps": steps} | changes)
    fitted = fit_refiner(matcher, album, album, params, seed=0, tracker=NullTracker(), scratch=scratch)
    _, last, _ = checkpoint.load(scratch)
    return matcher, last, fitted


def test_training_changes_the_refiner_alone_and_resumes(album, tmp_path):
    start = random_matcher(refine=True).state_dict()
    matcher, whole, fitted = trained(album, tmp_path / "whole", 6, decay_from=1.0)
    trained(album, tmp_path / "cut", 3, decay_from=1.0)
    _, resumed, _ = trained(album, tmp_path / "cut", 6, decay_from=1.0)
    assert fitted.steps == 6 and fitted.skipped == 0
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    state = matcher.state_dict()
    changed = {name.partition(".")[0] for name in start if not torch.equal(start[name], state[name])}
    assert changed == {"refiner"}


def test_a_skipped_step_leaves_everything_as_it_was(album, tmp_path, monkeypatch):
    loss = Refinement.loss

    def broken(self, batch, random):
        total, parts = loss(self, batch, random)
        return (total * torch.nan if self.refiner.training else total), parts

    monkeypatch.setattr(Refinement, "loss", broken)
    start = random_matcher(refine=True).refiner.state_dict()
    _, last, fitted = trained(album, tmp_path, 2, max_skipped=2)
    assert fitted.skipped == 2
    assert all(torch.equal(last[name], weights) for name, weights in start.items())


def test_the_distance_falls(album, tmp_path):
    """Between two cuts of one picture, of which one may be its negative."""
    easy = {"rotation": 0, "perspective": 0.0, "scale": (0.8, 0.8), "tone_share": 0.0, "slip": (2.0, 2.0)}
    often = {"validate_every": 50, "checkpoint_every": 50, "points": 64, "batch": 3}
    *_, fitted = trained(album, tmp_path, 50, **easy, **often)
    (_, before), (_, after) = fitted.curves["val/distance"]
    assert after < 0.8 * before


def test_a_matcher_without_a_refiner_is_refused():
    with pytest.raises(TrainingError, match="moves no matches"):
        Refinement(random_matcher(), RefinerTraining(**REFINER))
