"""LoFTR: its parts against kornia's own forward, its loss, its checkpoints, its borders."""

import cv2
import numpy as np
import pytest
import torch
from few_steps import few_steps
from formula import weight
from plane_world import PlaneWorld
from tiny_world import W

from minima_core import weights
from minima_core.data.pairs import PairSource
from minima_core.data.sampling import Item
from minima_core.errors import WeightsError
from minima_core.geometry.cells import cell_points
from minima_core.io.images import to_tensor
from minima_core.matchers._semidense import gray, load_checkpoint, mutual_matches, to_refine
from minima_core.matchers.loftr import matcher as loftr_matcher
from minima_core.matchers.loftr.loss import fine_loss, fine_offsets
from minima_core.matchers.loftr.network import LinearAttention, SingleAttention, match_cells, refine
from minima_core.models import create
from minima_core.supervision.coarse import CoarseTargets, coarse_targets

SETTINGS = {
    "size": "small", "positions": "fixed", "published": "outdoor", "long_side": 96, "max_keypoints": 500,
    "threshold": 0.0,
}  # fmt: skip


def matcher(**changes):
    torch.manual_seed(0)
    return create("loftr", SETTINGS | changes, "test").eval()


def picture(h=96, w=96, seed=0):
    rng = np.random.default_rng(seed)
    page = cv2.resize(rng.uniform(0, 255, (h // 4, w // 4, 3)).astype(np.float32), (w, h))
    return to_tensor(np.clip(page, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    world = PlaneWorld(tmp_path_factory.mktemp("world")).make()
    source = PairSource(world.index, world.raw, world.modalities, split="train", names=["infrared"])
    return matcher().training_data(source, max_keypoints=1, cache=tmp_path_factory.mktemp("cache"), workers=1)


def batch_of(data, count=2):
    return data.collate([data.sample(Item(k, "rgb", "rgb")) for k in range(count)])


@torch.inference_mode()
def test_stages_equal_kornias_forward():
    net = matcher().network
    image0, image1 = gray(picture()[None]), gray(picture(seed=1)[None])
    kornias = net({"image0": image0, "image1": image1})
    everywhere = torch.ones(1, 144, dtype=torch.bool)
    coarse = match_cells(net, image0, image1, everywhere, everywhere)
    ids, scores = mutual_matches(coarse.confidence, 0.0)
    inner = torch.ones(12, 12, dtype=torch.bool)
    inner[:2], inner[-2:], inner[:, :2], inner[:, -2:] = False, False, False, False
    kept = inner.flatten()[ids[1]] & inner.flatten()[ids[2]]  # kornia's border
    assert kept.sum() > 3
    offsets = refine(net, coarse, tuple(part[kept] for part in ids))[:, :2] * 4
    cells = torch.stack([ids[2] % 12, ids[2] // 12], 1)[kept] * 8
    torch.testing.assert_close(scores[kept], kornias["confidence"])
    torch.testing.assert_close(cells + offsets, kornias["keypoints1"], atol=1e-3, rtol=0)


def test_matching_is_kornias_in_pixels_whose_centres_are_whole():
    ours = matcher()
    image0, image1 = picture(), picture(72, 96, seed=1)
    found = ours.match(image0, image1)
    with torch.inference_mode():
        kornias = ours.network({"image0": gray(image0[None]), "image1": gray(image1[None])})
    order = kornias["confidence"].argsort(descending=True, stable=True)
    assert len(found) == len(order) > 3
    torch.testing.assert_close(found.mkpts0, kornias["keypoints0"][order] - 0.5)
    assert len(ours.match(image0, image1, max_keypoints=2)) == 2


def test_positions_are_a_setting_that_weights_do_not_hold():
    fixed, buggy = matcher(), matcher(positions="buggy")
    assert fixed.network.state_dict().keys() == buggy.network.state_dict().keys()
    # columns 1 and 2 of the second frequency: the buggy one is e^-2, the fixed one 10^(-4 * 2 / 32)
    for net, frequency in ((fixed, 10 ** (-8 / 32)), (buggy, np.exp(-2))):
        assert net.network.pos_encoding.pe[0, 4, 0, 1].item() == pytest.approx(np.sin(2 * frequency), abs=1e-5)


def test_image_without_texture_has_no_matches():
    assert len(matcher().match(torch.full((3, 96, 96), 0.3), picture())) == 0


def test_lightning_checkpoint_loads_strictly(monkeypatch):
    net = matcher().network
    state = {f"matcher.{k}": weight(k, v.shape) for k, v in net.state_dict().items()}
    monkeypatch.setattr(weights, "load", lambda name: {"state_dict": state})
    load_checkpoint(net, "minima_loftr.ckpt")
    assert torch.equal(net.state_dict()["backbone.conv1.weight"], state["matcher.backbone.conv1.weight"])
    state["matcher.more"] = torch.zeros(1)
    with pytest.raises(WeightsError, match=r"minima_loftr\.ckpt does not fit"):
        load_checkpoint(net, "minima_loftr.ckpt")
    with pytest.raises(WeightsError, match="size small"):
        matcher().load_published()


def test_fine_loss_by_hand():
    # spreads 0.5 and 1: inverse 2 and 1, mean 1.5, weights 4/3 and 2/3; squared distances 0.25 and 1
    expected = torch.tensor([[0.5, 0.0, 0.5], [0.0, -1.0, 1.0]])
    loss = fine_loss(expected, torch.zeros(2, 2), torch.tensor([0, 0]), 2, least=1e-10)
    assert loss.tolist() == pytest.approx([(4 / 3 * 0.25 + 2 / 3) / 2, 0.0])
    even = fine_loss(expected, torch.zeros(2, 2), torch.tensor([0, 0]), 2, least=1.0)  # neither counts as surer
    assert even.tolist() == pytest.approx([(0.25 + 1) / 2, 0.0])


def test_truth_that_is_unknown_or_beyond_the_window_is_not_used():
    ones, known = torch.ones(1, 4, dtype=torch.bool), torch.tensor([[True, True, False, True]])
    warped = torch.tensor([[[1.5, 0.5], [7.5, 0.5], [-1.0, -1.0], [7.5, 7.5]]])
    targets = CoarseTargets(torch.tensor([[0, 1, 2, 3]]), warped, known, ones, ones)
    ids = (torch.zeros(3, dtype=torch.long), torch.tensor([0, 1, 2]), torch.tensor([0, 0, 0]))
    offsets, used = fine_offsets(targets, ids, reach=4.0)
    assert offsets[:2].tolist() == [[0.5, 0.25], [2.0, 0.25]] and used.tolist() == [True, False, False]


def test_fine_stage_gets_found_and_true_matches(data):
    batch = batch_of(data)
    targets = coarse_targets(batch)
    confidence = torch.rand(2, 144, 144, generator=torch.Generator().manual_seed(0))
    ids = to_refine(confidence, 0.0, targets)
    assert len(ids[0]) == int(0.3 * 2 * 144)
    true = (targets.partner0[ids[0], ids[1]] == ids[2]).sum()
    assert true >= len(ids[0]) // 2


def test_a_few_steps_lower_the_loss(data):
    net = matcher(threshold=0.2).train()
    batch = batch_of(data)
    optimiser = torch.optim.AdamW(net.trainable(), lr=2e-3)
    losses = few_steps(net, batch, optimiser)
    assert losses[-1].total < 0.8 * losses[0].total
    parts = losses[-1].parts
    assert set(parts) == {"coarse", "fine", "recall"}
    assert losses[-1].total.item() == pytest.approx(parts["coarse"] + parts["fine"]) and parts["fine"] > 0


def test_a_match_refined_to_its_true_place_costs_nothing(data, monkeypatch):
    """In pixels as at inference: four of them are one unit of what the network says."""
    batch = batch_of(data)
    targets = coarse_targets(batch)

    def true(net, coarse, ids):
        offset = targets.warped0[ids[0], ids[1]] - cell_points(12, 12)[ids[2]]
        return torch.cat([offset / 4, torch.ones(len(offset), 1)], 1)

    monkeypatch.setattr(loftr_matcher, "refine", true)
    assert matcher(threshold=0.2).loss(batch).parts["fine"] == pytest.approx(0, abs=1e-9)


def test_batch_without_truth_costs_nothing(data):
    net, batch = matcher().train(), batch_of(data)
    batch.depth0.zero_()
    batch.depth1.zero_()
    losses = net.loss(batch)
    assert losses.total == 0
    losses.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())
    assert data.sample(Item(0, "rgb", "rgb")).image0.shape[-1] == 96 < W


def test_attention_has_the_gradients_of_single_precision_in_half():
    """Of tokens below -6, whose ``elu(x) + 1`` half precision takes for zero."""
    torch.manual_seed(0)
    tokens, values = torch.randn(1, 25, 4, 8) * 0.5 - 8, torch.randn(1, 25, 4, 8)

    def gradient(attention, precision):
        queries = tokens.to(precision, copy=True).requires_grad_()
        attention(queries, tokens.to(precision), values.to(precision)).float().square().sum().backward()
        return queries.grad.float()

    expected = gradient(LinearAttention(), torch.float32)
    assert (gradient(SingleAttention(), torch.bfloat16) - expected).norm() < 0.1 * expected.norm()
    assert not (gradient(LinearAttention(), torch.bfloat16) - expected).norm() < 0.5 * expected.norm()  # kornia's


def test_half_precision_trains(data):
    made = matcher().train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = made.loss(batch_of(data, 1))
    losses.total.backward()
    assert losses.total.isfinite() and losses.total.dtype == torch.float32
