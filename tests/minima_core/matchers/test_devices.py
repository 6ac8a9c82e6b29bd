"""Every network on every device that is here, beside what it gives on the CPU: there is one on an accelerator only."""

import copy

import pytest
import torch
from plane_world import PlaneWorld
from test_matcher_conformance import matcher, picture

from minima_core.data.pairs import PairSource
from minima_core.data.sampling import Item
from minima_core.matchers.base import computing_in

NETWORKS = ["lightglue", "loftr", "eloftr", "roma", "xfeat_star"]
# with what an accelerator is compared, and the CPU with itself, so that these lines are run everywhere
DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
        ],
    ),
]
PAIR = picture(240, 320), picture(240, 320).roll(8, -1)
HOW = {"long_side": 320, "max_keypoints": 1000}


@pytest.fixture(scope="module", params=NETWORKS)
def made(request):
    return matcher(request.param)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    world = PlaneWorld(tmp_path_factory.mktemp("world")).make()
    return PairSource(world.index, world.raw, world.modalities, split="train", names=["infrared"])


def near(found, others):
    """Return the share of matches that have another within a pixel at both ends."""
    ends, other_ends = (torch.cat([some.mkpts0, some.mkpts1], 1) for some in (found, others))
    return float((torch.cdist(ends, other_ends).amin(1) < 1).float().mean())


@pytest.mark.parametrize("device", DEVICES)
def test_float32_matches_are_those_of_the_cpu(made, device):
    there = copy.deepcopy(made).to(device).match(*PAIR, **HOW)
    here = made.match(*PAIR, **HOW)
    assert there.mkpts0.device.type == "cpu" and len(here) > 0
    # sums are taken in another order, and random weights are full of ties
    assert near(there, here) > 0.95 and near(here, there) > 0.95


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("device", DEVICES)
def test_half_precision_matches_are_close(made, device, precision):
    moved = copy.deepcopy(made).to(device)
    moved.precision = precision
    together = moved.match_batch([PAIR, PAIR[::-1]], **HOW)
    assert near(together[0], made.match(*PAIR, **HOW)) > 0.6
    assert all(found.scores.dtype == torch.float32 for found in together)


@pytest.mark.parametrize(("precision", "apart"), [("float32", 0.01), ("bfloat16", 0.2)])
@pytest.mark.parametrize("device", DEVICES)
def test_a_step_of_training_is_that_of_the_cpu_and_finite(made, device, precision, apart, pairs, tmp_path):
    here, there = (copy.deepcopy(made).to(where).train() for where in ("cpu", device))
    data = here.training_data(pairs, max_keypoints=128, cache=tmp_path, workers=1)
    batch = data.collate([data.sample(Item(k, "rgb", "infrared")) for k in range(2)])
    with computing_in(precision, torch.device(device)):
        loss = there.loss(batch).total
    assert loss.item() == pytest.approx(here.loss(batch).total.item(), rel=apart)
    loss.backward()
    before = [weight.detach().clone() for weight in there.trainable()]
    assert 0 < torch.nn.utils.clip_grad_norm_(there.trainable(), 1.0).item() < float("inf")
    torch.optim.SGD(there.trainable(), lr=1e-3).step()
    after = there.trainable()
    assert all(weight.isfinite().all() and weight.dtype == torch.float32 for weight in after)
    assert any(not torch.equal(weight, old) for weight, old in zip(after, before, strict=True))
    data.close()


@pytest.mark.parametrize("device", DEVICES)
def test_numbers_that_are_not_finite_reach_the_loss_and_are_no_error(made, device, pairs, tmp_path):
    """A training skips such a step and counts it."""
    broken = copy.deepcopy(made).to(device).train()
    data = broken.training_data(pairs, max_keypoints=128, cache=tmp_path, workers=1)
    batch = data.collate([data.sample(Item(k, "rgb", "infrared")) for k in range(2)])
    data.close()
    with torch.no_grad():
        for weight in broken.trainable():
            weight.fill_(torch.nan)
    assert broken.loss(batch).total.isnan()
