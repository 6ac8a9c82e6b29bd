"""Learning rates and schedules: the published ones, from the paper's settings in params.yaml."""

from pathlib import Path

import pytest
import torch
from pydantic import TypeAdapter
from torch import nn

from minima_core.config import load_params
from minima_core.errors import TrainingError
from minima_core.training.loop import TrainingParams
from minima_core.training.optim import Optimiser, Schedule, optimiser_for, scaled_lr

FINETUNE = load_params(Path(__file__).parents[3] / "params.yaml")["training"]["finetune"]


def paper(matcher):
    return TrainingParams.model_validate(FINETUNE[matcher]["paper"])


def rates(matcher, batch=None):
    params = paper(matcher)
    return {n: scaled_lr(v, batch or params.batch, params.optimiser.lr_batch) for n, v in params.optimiser.lr.items()}


def factors(at, steps=100, **settings):
    schedule = TypeAdapter(Schedule).validate_python(settings)
    return [round(schedule.factor(step, steps), 4) for step in at]


def test_learning_rates_are_the_published_ones():
    assert rates("lightglue") == pytest.approx({"all": 1e-4})
    assert rates("lightglue", batch=24) == pytest.approx({"all": 0.75e-4})  # glue-factory's fork
    assert rates("loftr") == pytest.approx({"all": 1e-4})
    assert rates("roma") == pytest.approx({"encoder": 7.5e-7, "decoder": 1.5e-5})


def test_schedules_are_the_published_ones():
    loftr, roma, lightglue = (paper(name) for name in ("loftr", "roma", "lightglue"))
    assert loftr.schedule.warmup == round(1875 / (loftr.batch / 64)) == 15000
    assert loftr.schedule.milestones == [epoch * 36800 // loftr.batch for epoch in (8, 12, 16, 20, 24)]
    assert loftr.schedule.factor(0, loftr.steps) == pytest.approx(0.1)
    assert loftr.schedule.factor(loftr.steps - 1, loftr.steps) == 0.5**5
    assert roma.checkpoint_every == 25000 // roma.batch == 2083
    assert roma.steps == 8_000_000 // roma.batch and roma.schedule.milestones == [9 * 8_000_000 // (10 * roma.batch)]
    epoch = lightglue.steps / 50
    assert lightglue.schedule.factor(round(40 * epoch), lightglue.steps) == pytest.approx(0.1)


def test_rate_warms_up_stays_and_falls():
    settings = {"kind": "exponential", "warmup": 4, "decay_from": 0.6, "decay_to": 0.1}
    assert factors([0, 1, 2, 3, 4, 59, 60], **settings) == [0.2, 0.4, 0.6, 0.8, 1.0, 1.0, 1.0]
    assert factors([80, 100], **settings) == [round(0.1**0.5, 4), 0.1]


def test_rate_falls_at_milestones():
    settings = {"kind": "multi_step", "warmup": 10, "warmup_from": 0.1, "milestones": [50, 90], "gamma": 0.5}
    assert factors([0, 5, 10, 49, 50, 90], **settings) == [0.1, 0.55, 1.0, 1.0, 0.5, 0.25]


def test_rate_follows_half_a_cosine():
    assert factors([0, 50, 100], kind="cosine", warmup=0, decay_to=0.2) == [1.0, 0.6, 0.2]
    assert factors([0, 19, 20, 60, 100], kind="cosine", warmup=20, decay_to=0.2) == [0.0476, 0.9524, 1.0, 0.6, 0.2]


def test_each_group_has_its_own_rate():
    layers = [nn.Linear(1, 1, bias=False) for _ in range(2)]
    groups = {name: list(layer.parameters()) for name, layer in zip(("encoder", "decoder"), layers, strict=True)}
    settings = Optimiser(kind="adamw", weight_decay=0.5, lr={"encoder": 0.1, "decoder": 0.2}, lr_batch=8)
    optimiser = optimiser_for(groups, settings, 4)
    assert isinstance(optimiser, torch.optim.AdamW)
    before = [layer.weight.item() for layer in layers]
    for layer in layers:
        layer.weight.grad = torch.zeros(1, 1)
    optimiser.step()  # nothing but the decay, which is in proportion to the rate
    assert [layer.weight.item() for layer in layers] == pytest.approx([before[0] * 0.975, before[1] * 0.95])


def test_rates_for_other_groups_are_refused():
    settings = Optimiser(kind="adam", weight_decay=0, lr={"encoder": 0.1}, lr_batch=8)
    with pytest.raises(TrainingError, match=r"optimiser\.lr .* is for encoder; .* are all"):
        optimiser_for({"all": []}, settings, 4)
