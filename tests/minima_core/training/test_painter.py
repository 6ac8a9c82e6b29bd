"""Training the Paint Transformer's network: its tasks, its losses, and that a resumed run ends the same."""

import math

import numpy as np
import pytest
import torch
from painter_settings import PAINTER
from pydantic import ValidationError
from scipy.linalg import sqrtm

from minima_core.errors import TrainingError
from minima_core.io.weights import state_digest
from minima_core.synthesis.paint._meta_brushes import own_brushes
from minima_core.synthesis.paint._painter import TINY_SIZE, random_painter
from minima_core.synthesis.paint._renderer import Region, Strokes, lay
from minima_core.tracking import NullTracker
from minima_core.training import painter as training
from minima_core.training.painter import (
    PainterTraining,
    Scenes,
    fit_painter,
    losses,
    painted_softly,
    random_scenes,
    scenes_of,
    shape_distance,
    soft_cover,
    visible,
    wasserstein,
    weighted,
)


def settings(**changes):
    return PainterTraining.model_validate(PAINTER | changes)


def some_scenes(count=32, seed=0):
    return random_scenes(count, 8, (0.2, 0.8), torch.Generator().manual_seed(seed))


def strokes(*rows):
    return torch.tensor([rows], dtype=torch.float32)


def test_tasks_depend_on_seed_and_step_only():
    torch.manual_seed(1)
    first = scenes_of(settings(), 0, 3)
    torch.manual_seed(2)
    assert (scenes_of(settings(), 0, 3).target == first.target).all()
    assert all((scenes_of(settings(), *other).shape != first.shape).any() for other in ((0, 4), (1, 3)))


def test_tasks_are_what_the_engine_paints():
    scenes = some_scenes()
    covered = (scenes.canvas > 0).flatten(1).float().mean(1)
    assert 0.3 < (covered == 0).float().mean() < 0.7 and covered.max() > 0.7  # black, or painted as by a coarser pass
    counts = scenes.expected.sum(1)
    assert counts.min() == 0 and counts.max() >= 6
    changed = (scenes.canvas != scenes.target).any(1).flatten(1).any(1)
    assert (changed == (counts > 0)).float().mean() > 0.8
    assert (scenes.shape[..., 3] >= scenes.shape[..., 2]).all()  # one description of each stroke
    assert scenes.shape[..., 2:4].min() >= 0.2 and scenes.shape[..., 2:4].max() <= 0.8


def test_a_stroke_is_visible_as_far_as_no_later_one_hides_it():
    shape = strokes((0.5, 0.5, 0.4, 0.4, 0.0), (0.5, 0.6, 0.4, 0.4, 0.0), (0.2, 0.2, 0.9, 0.9, 0.0))
    everything = torch.ones(1, 3, dtype=torch.bool)
    assert visible(shape, everything)[0].tolist() == [pytest.approx(0.13, abs=0.13), pytest.approx(0.6, abs=0.2), 1]
    assert visible(shape, torch.tensor([[True, False, False]]))[0, 0] == 1


def test_soft_cover_lies_where_the_engine_paints():
    scenes = some_scenes()
    for shape in scenes.shape[:8, 0]:
        canvas = torch.zeros(1, 3, 32, 32)
        stroke = Strokes(shape[None], torch.ones(1, 3), torch.zeros(1, 3, dtype=torch.int64))
        lay(canvas, stroke, 32, own_brushes(), Region(0, 32, 0, 32))
        hard, soft = canvas[0, 0] > 0, soft_cover(shape[None, None])[0, 0] > 0.5
        assert (hard & soft).sum() > 0.55 * (hard | soft).sum()


def test_wasserstein_is_that_of_gaussians():
    one, other = (0.3, 0.4, 0.5, 0.2, 0.3), (0.6, 0.5, 0.3, 0.7, 0.9)

    def covariance(stroke):
        c, s = math.cos(math.pi * stroke[4]), math.sin(math.pi * stroke[4])
        turn = np.array([[c, -s], [s, c]])
        return turn @ np.diag([stroke[2] ** 2 / 4, stroke[3] ** 2 / 4]) @ turn.T

    a, b = covariance(one), covariance(other)
    root = sqrtm(a)
    expected = 0.3**2 + 0.1**2 + np.trace(a + b - 2 * np.real(sqrtm(root @ b @ root)))
    assert float(wasserstein(strokes(one), strokes(other))) == pytest.approx(expected, abs=1e-6)


def test_wasserstein_knows_that_a_quarter_turn_swaps_the_sides():
    one, moved = (0.3, 0.4, 0.5, 0.2, 0.3), (0.6, 0.0, 0.5, 0.2, 0.3)
    swapped = (0.3, 0.4, 0.2, 0.5, 0.8)
    distances = wasserstein(strokes(one), strokes(one, swapped, moved))[0, 0]
    assert distances.tolist() == pytest.approx([0, 0, 0.25], abs=1e-6)


def test_angles_repeat():
    one = strokes((0.5, 0.5, 0.5, 0.5, 0.95))
    others = strokes((0.5, 0.5, 0.5, 0.5, 0.05), (0.5, 0.5, 0.5, 0.5, 2.95), (0.1, 0.5, 0.5, 0.7, 0.45))
    assert shape_distance(one, others)[0, 0].tolist() == pytest.approx([0.1, 0, 0.4 + 0.2 + 0.5], abs=1e-6)


def perfect(scenes):
    """Proposals that are the strokes themselves, in another order."""
    order = torch.tensor([5, 2, 7, 0, 1, 3, 6, 4])
    return scenes.shape[:, order], torch.where(scenes.expected[:, order], 20.0, -20.0)[..., None]


def test_the_right_strokes_cost_nothing_in_any_order():
    scenes = some_scenes()
    parts = losses(*perfect(scenes), scenes)
    assert all(float(parts[name]) == pytest.approx(0, abs=1e-4) for name in ("shape", "wasserstein", "decision"))
    shape, logit = perfect(scenes)
    for wrong in ((shape + 0.1, logit), (shape, -logit)):
        worse = losses(*wrong, scenes)
        assert weighted(worse, settings()) > weighted(parts, settings()) + 0.1


def test_a_task_without_strokes_asks_for_none():
    scenes = some_scenes(2)
    nothing = Scenes(scenes.canvas, scenes.canvas, scenes.shape, torch.zeros_like(scenes.expected))
    parts = losses(scenes.shape, torch.full((2, 8, 1), -20.0), nothing)
    assert all(float(value) == pytest.approx(0, abs=1e-6) for value in parts.values())


def test_painting_softly_comes_near_the_target_and_has_gradients():
    scenes = some_scenes()
    shape = scenes.shape.clone().requires_grad_()
    logit = torch.where(scenes.expected, 3.0, -3.0).requires_grad_()
    soft = painted_softly(shape, logit, scenes)
    before = (scenes.canvas - scenes.target).abs().mean()
    assert (soft - scenes.target).abs().mean() < 0.45 * before
    assert (painted_softly(shape, torch.full_like(logit, -9.0), scenes) == scenes.canvas).all()
    torch.autograd.backward((soft - scenes.target).abs().mean())
    assert (shape.grad[scenes.expected] != 0).all() and (logit.grad != 0).float().mean() > 0.5


def test_every_weight_of_the_network_learns():
    painter, scenes = random_painter(TINY_SIZE, 0), some_scenes(8)
    torch.autograd.backward(weighted(losses(*painter.train()(scenes.target, scenes.canvas), scenes), settings()))
    still = [name for name, weight in painter.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert still == []


def fit(scratch, tracker=None, **changes):
    return fit_painter(settings(**changes), seed=0, tracker=tracker or NullTracker(), scratch=scratch)


class Interrupted(NullTracker):
    """Ends a run after the validation of a step."""

    def __init__(self, at):
        self.at = at

    def metrics(self, values, step=None):
        if "val/loss" in values and step == self.at:
            raise KeyboardInterrupt


def test_a_run_that_was_interrupted_ends_with_the_same_bits(tmp_path):
    whole, fitted = fit(tmp_path / "a")
    for at in (3, 6):
        with pytest.raises(KeyboardInterrupt):
            fit(tmp_path / "b", Interrupted(at))
    resumed, again = fit(tmp_path / "b")
    assert again == fitted and fitted.steps == 6
    assert state_digest(whole.state_dict()) == state_digest(resumed.state_dict())
    assert [step for step, _ in fitted.curves["val/loss"]] == [0, 3, 6]
    start = random_painter(TINY_SIZE, 0).state_dict()
    assert state_digest(start) != state_digest(whole.state_dict())
    finished, _ = fit(tmp_path / "b")
    assert state_digest(finished.state_dict()) == state_digest(whole.state_dict())


def test_another_seed_trains_another_network(tmp_path):
    one, _ = fit(tmp_path / "a", steps=2)
    other, _ = fit_painter(settings(steps=2), seed=1, tracker=NullTracker(), scratch=tmp_path / "b")
    assert state_digest(one.state_dict()) != state_digest(other.state_dict())


def test_the_best_weights_are_kept(tmp_path):
    _, fitted = fit(tmp_path, lr=0.3, clip=1e9, warmup=0)  # nothing good comes of this
    painter, _ = fit(tmp_path, lr=0.3, clip=1e9, warmup=0)
    assert fitted.final["best/step"] == 0
    values = dict(fitted.curves["val/loss"])
    assert values[0] == min(values.values()) < values[6]
    assert all(weight.isfinite().all() for weight in painter.parameters())


@pytest.mark.slow
def test_a_short_training_learns(tmp_path):
    _, fitted = fit(tmp_path, steps=40, batch=12, lr=3e-3, validate_every=40, validation_samples=64)
    (_, before), (_, after) = fitted.curves["val/loss"]
    assert after < 0.75 * before


def test_steps_without_a_finite_loss_are_skipped_and_counted(tmp_path, monkeypatch):
    real, poison = training.losses, {1}
    calls = []

    def sometimes(shape, logit, scenes):
        parts = real(shape, logit, scenes)
        if shape.requires_grad:
            calls.append(shape)
            if len(calls) - 1 in poison:
                return {**parts, "pixel": parts["pixel"] * math.nan}
        return parts

    monkeypatch.setattr(training, "losses", sometimes)
    painter, fitted = fit(tmp_path / "a")
    assert fitted.skipped == 1 and all(weight.isfinite().all() for weight in painter.parameters())
    calls.clear()
    poison |= {2}
    with pytest.raises(TrainingError, match=r"2 steps had a loss .* max_skipped is 1; lower painter_training\.lr"):
        fit(tmp_path / "b")


def test_a_validation_loss_that_is_not_finite_ends_the_run(tmp_path, monkeypatch):
    """It counted as the lowest, and the weights of the beginning came out as the best."""
    real = training.losses

    def poisoned(shape, logit, scenes):
        parts = real(shape, logit, scenes)
        return parts if shape.requires_grad else {**parts, "pixel": parts["pixel"] * math.nan}

    monkeypatch.setattr(training, "losses", poisoned)
    with pytest.raises(TrainingError, match=r"validation loss at step 0 is not finite; lower painter_training\.lr"):
        fit(tmp_path)


@pytest.mark.parametrize("wrong", [{"side": [0.5, 0.2]}, {"side": [0.0, 0.2]}, {"dropout": 0.1}, {"steps": 0}])
def test_settings_that_cannot_be_used_are_refused(wrong):
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        settings(**wrong)


def test_a_size_that_cannot_be_split_among_heads_is_refused():
    with pytest.raises(ValidationError, match=r"hidden \(16\) must be a multiple of heads \(3\)"):
        settings(size=TINY_SIZE.model_dump() | {"heads": 3})
