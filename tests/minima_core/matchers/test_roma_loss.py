"""RoMa's loss by hand, where nothing is known, and in a few steps of training."""

import math

import pytest
import torch
from plane_world import PlaneWorld

from minima_core.data.pairs import PairSource
from minima_core.data.sampling import Item
from minima_core.matchers.roma.loss import anchor_loss, certainty_loss, dense_loss, mean_where, robust
from minima_core.matchers.roma.network import Estimate
from minima_core.models import create
from minima_core.supervision.dense import DenseTargets

SETTINGS = {
    "width": "tiny", "published": "outdoor", "long_side": 64, "max_keypoints": 100, "coarse_side": 56, "fine_side": 64,
    "threshold": 0.05,
}  # fmt: skip


def known(flow, certainty):
    return DenseTargets(flow.permute(0, 2, 3, 1), certainty)


def test_the_anchor_is_the_nearest_and_what_is_unknown_does_not_count():
    # 2 x 2 anchors at +-1/2; the first place is nearest to the top right one, the second is not known
    choice = torch.tensor([0.0, math.log(3), 0.0, 0.0]).view(1, 4, 1, 1).expand(1, 4, 1, 2)
    places = torch.tensor([[[[0.9, -0.1], [-0.9, 0.9]]]])
    assert anchor_loss(choice, places, torch.tensor([[[1.0, 0.0]]])).item() == pytest.approx(math.log(2))
    assert anchor_loss(choice, places, torch.tensor([[[1.0, 1.0]]])).item() == pytest.approx(math.log(2 * 6) / 2)
    outside = torch.tensor([[[[2.0, -2.0], [2.0, -2.0]]]])
    assert anchor_loss(choice, outside, torch.ones(1, 1, 2)).item() == pytest.approx(math.log(2))


def test_the_robust_error_by_hand():
    # (e² + c²)^(1/4) with c = 4e-4 at stride 4, where e is 0 and 3e-4
    found = robust(torch.tensor([0.0, 3e-4]), 4)
    assert found.tolist() == pytest.approx([4e-4**0.5, 5e-4**0.5], rel=1e-5)
    assert mean_where(torch.tensor([[[2.0, 8.0]]]), torch.zeros(1, 1, 2)).item() == 0


def test_an_even_certainty_costs_the_logarithm_of_two():
    assert certainty_loss(torch.zeros(1, 1, 1, 2), torch.tensor([[[0.0, 1.0]]])).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(("stride", "near"), [(8, 8), (4, 8), (2, 4), (1, 4)])
@pytest.mark.parametrize(("off", "counts"), [(0.9, True), (1.1, False)])
def test_a_refiner_learns_only_where_the_stride_before_was_near(off, counts, stride, near):
    limit = 2 / 512 * near * stride
    true = torch.zeros(1, 2, 1, 1)
    before = Estimate(true + torch.tensor([off * limit, 0]).view(1, 2, 1, 1), torch.zeros(1, 1, 1, 1))
    after = Estimate(torch.zeros(1, 2, 1, 1), torch.full((1, 1, 1, 1), 20.0))
    estimates = {2 * stride: before, stride: after}
    _, parts = dense_loss(estimates, lambda size: known(true, torch.ones(1, size[1], size[0])))
    first = robust(torch.tensor(off * limit), 2 * stride).item()
    assert parts["regression"].item() == pytest.approx(first + (math.sqrt(1e-4 * stride) if counts else 0), rel=1e-5)
    # a sure pixel costs nothing where it counts, else all of its logit
    assert parts["certainty"].item() == pytest.approx(math.log(2) + (0.0 if counts else 20.0), abs=1e-5)


def test_without_ground_truth_there_is_a_gradient_but_nothing_to_match():
    flow, certainty = torch.zeros(1, 2, 2, 2, requires_grad=True), torch.zeros(1, 1, 2, 2, requires_grad=True)
    total, parts = dense_loss({16: Estimate(flow, certainty)}, lambda _: known(flow.detach(), torch.zeros(1, 2, 2)))
    total.backward()
    assert parts["regression"].item() == 0
    assert torch.equal(flow.grad, torch.zeros_like(flow))
    assert bool((certainty.grad > 0).all())


def test_a_few_steps_lower_the_loss(tmp_path):
    world = PlaneWorld(tmp_path / "world").make()
    torch.manual_seed(0)
    roma = create("roma", SETTINGS, "test")
    frozen = roma.dino.state_dict()["blocks.0.attn.qkv.weight"].clone()
    source = PairSource(world.index, world.raw, world.modalities, split="train", names=["infrared"])
    data = roma.training_data(source, max_keypoints=1, cache=tmp_path, workers=1)
    batch = data.collate([data.sample(Item(0, "rgb", "infrared")), data.sample(Item(1, "rgb", "rgb"))])
    groups = roma.groups()
    assert {id(p) for group in groups.values() for p in group} == {id(p) for p in roma.trainable()}
    optimiser = torch.optim.AdamW([p for group in groups.values() for p in group], lr=3e-3)
    losses = []
    for _ in range(12):
        optimiser.zero_grad()
        found = roma.train().loss(batch)
        found.total.backward()
        optimiser.step()
        losses.append(found.total.item())
    assert losses[-1] < 0.8 * losses[0]
    assert torch.equal(roma.dino.state_dict()["blocks.0.attn.qkv.weight"], frozen)
