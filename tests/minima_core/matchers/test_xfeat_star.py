"""XFeat*: its parts against kornia's, its labels on known geometry, its loss, and where its weights put a match."""

import cv2
import numpy as np
import pytest
import torch
from few_steps import few_steps
from kornia.feature import XFeat
from plane_world import PlaneWorld
from test_matcher_conformance import matcher
from two_views import S, plane, scene

from minima_core.data.pairs import PairSource
from minima_core.data.sampling import Item
from minima_core.errors import WeightsError
from minima_core.geometry.cells import CELL
from minima_core.geometry.homography import warp_homography
from minima_core.io.images import to_tensor
from minima_core.matchers._semidense import normalised
from minima_core.matchers.xfeat_star.loss import MOST, Truth, pair_losses, truths
from minima_core.matchers.xfeat_star.network import BINS, MIDDLE, build, describe, mean_place
from minima_core.models import PUBLISHED_MODELS, create

SIDE = S // CELL


def picture(h=480, w=640, seed=0):
    """Return blobs of several sizes, so that there is something to see at every scale."""
    rng = np.random.default_rng(seed)
    sizes = (4, 8, 16, 32)
    page = sum(cv2.resize(rng.uniform(0, 255, (h // n, w // n, 3)).astype(np.float32), (w, h)) for n in sizes)
    return np.clip(page / len(sizes), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def made():
    return matcher("xfeat_star")


@pytest.fixture(scope="module")
def data(made, tmp_path_factory):
    world = PlaneWorld(tmp_path_factory.mktemp("world")).make()
    source = PairSource(world.index, world.raw, world.modalities, split="train", names=["infrared"])
    return made.training_data(source, max_keypoints=1, cache=tmp_path_factory.mktemp("cache"), workers=1)


def batch_of(data, count=2):
    return data.collate([data.sample(Item(k, "rgb", "infrared")) for k in range(count)])


@torch.inference_mode()
def test_cells_matches_and_places_are_kornias(made):
    """All but the place that stands for the cell's own point: see ``network.MIDDLE``."""
    kornia = XFeat().eval()
    state = {name: tensor for name, tensor in made.network.state_dict().items() if not name.startswith("norm")}
    kornia.net.load_state_dict(state)
    image = to_tensor(picture(96, 128))
    images = torch.stack([image, image.roll(6, -1)])
    desc, reliability = describe(made.network, images, torch.ones(2, 96, 128, dtype=torch.bool))
    theirs, _, trust = kornia.net(images)
    torch.testing.assert_close(desc, theirs.flatten(2).mT, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(reliability, trust.flatten(1), atol=1e-4, rtol=1e-4)
    sides = [
        {"keypoints": torch.zeros(1, 192, 2), "descriptors": some[None], "scales": torch.ones(1, 192)} for some in desc
    ]
    found = kornia._batch_match(desc[:1], desc[1:])
    assert len(found[0][0]) > 3
    refined = kornia._refine_matches(*sides, found, 0, fine_conf=-1.0)[:, :2]
    offset, certainty = mean_place(
        made.network.fine_matcher(torch.cat([desc[0][found[0][0]], desc[1][found[0][1]]], 1))
    )
    torch.testing.assert_close(offset, refined + (BINS // 2 - MIDDLE), atol=1e-4, rtol=0)
    assert ((certainty > 0) & (certainty <= 1)).all()


def test_padding_does_not_change_what_is_seen(made):
    image = to_tensor(picture(64, 96))
    padded, mask = torch.zeros(1, 3, 96, 96), torch.zeros(1, 96, 96, dtype=torch.bool)
    padded[..., :64, :], mask[:, :64] = image, True
    whole = torch.ones(1, 64, 96, dtype=torch.bool)
    torch.testing.assert_close(normalised(padded, mask)[..., :64, :], normalised(image[None], whole))
    assert normalised(padded, mask)[..., 64:, :].abs().max() == 0
    kornias = torch.nn.InstanceNorm2d(1)(image.mean(0)[None, None])
    torch.testing.assert_close(normalised(image[None], whole), kornias, atol=1e-4, rtol=1e-4)


def test_truth_of_a_plane_that_moves_by_part_of_a_cell():
    # 80 px focal length, baseline 0.5, depth 4: 10 px to the left; image 1's points lie a cell and 2 px further right
    (truth,) = truths(scene(plane(4.0), plane(4.0)))
    column0, column1 = truth.cell0 % SIDE, truth.cell1 % SIDE
    assert len(truth.cell0) > SIDE and torch.equal(column0, column1 + 1)
    assert torch.equal(truth.cell0 // SIDE, truth.cell1 // SIDE)
    assert truth.place.eq(MIDDLE * BINS + MIDDLE + 2).all()


def test_truth_by_a_homography_is_thinned_evenly():
    H = torch.tensor([[1.0, 0, -3], [0, 1, 2], [0, 0, 1]])  # of image 0: image 1's points lie 3 px right, 2 px up in it
    (truth,) = truths(scene(plane(0.0), plane(0.0), H=H))
    assert truth.place.eq((MIDDLE - 2) * BINS + MIDDLE + 3).all()
    assert len(truth.cell0) <= MOST and len(truth.cell0.unique()) == len(truth.cell0)


def losses(network, truth, desc0, desc1, trust0, trust1):
    return pair_losses(network, truth, desc0, desc1, torch.tensor(trust0), torch.tensor(trust1))


def test_losses_by_hand():
    network = build().eval()
    for weight in network.fine_matcher[-1].parameters():
        torch.nn.init.zeros_(weight)  # all places alike
    desc0 = torch.nn.functional.one_hot(torch.arange(3), 64).float() * 5
    everywhere, last_padding = torch.ones(3, dtype=torch.bool), torch.tensor([True, True, False])
    truth = Truth(torch.tensor([0]), torch.tensor([1]), torch.tensor([9]), everywhere, last_padding)
    # cell 0 of image 0 is cell 1 of image 1; similarities 25 and 0 times 0.2; one other cell forth, two others back
    desc1 = desc0[[1, 0, 2]]
    forth, back = (-np.log(np.exp(5) / (np.exp(5) + others)) for others in (1, 2))
    got = losses(network, truth, desc0, desc1, [0.4, 0, 0], [0, 0.9, 0])
    want = [forth + back, -(np.log(0.4) + np.log(0.9)) / 2, np.log(64), 1.0]
    assert got.tolist() == pytest.approx(want, rel=1e-4)
    wrong = losses(network, truth, desc0, desc0, [0.4, 0, 0], [0, 0.9, 0])
    assert wrong[3] == 0 and wrong[0] > got[0] + 5
    assert wrong[1].item() == pytest.approx(-(np.log(0.6) + np.log(0.1)) / 2, rel=1e-4)


def test_a_few_steps_lower_the_loss(made, data):
    net = create("xfeat_star", made.params.model_dump(), "test")
    net.load_state_dict(made.state_dict())
    net.train()
    batch = batch_of(data)
    optimiser = torch.optim.Adam(net.trainable(), lr=1e-3)
    statistics = [b.clone() for name, b in net.named_buffers() if "running" in name]
    losses = few_steps(net, batch, optimiser)
    assert losses[-1].total < 0.9 * losses[0].total
    parts = losses[-1].parts
    assert set(parts) == {"coarse", "reliability", "place", "recall"}
    total = parts["coarse"] + 0.5 * parts["reliability"] + 2 * parts["place"]
    assert losses[-1].total.item() == pytest.approx(total) and min(parts["reliability"], parts["place"]) > 0
    after = [b for name, b in net.named_buffers() if "running" in name]
    assert statistics and all(torch.equal(a, b) for a, b in zip(statistics, after, strict=True))
    head = "network.keypoint_head."
    assert all(torch.equal(w, net.state_dict()[n]) for n, w in made.state_dict().items() if n.startswith(head))


def test_a_batch_without_truth_costs_nothing(made, data):
    batch = batch_of(data)
    batch.depth0.zero_(), batch.depth1.zero_()
    lost = made.train().loss(batch)
    lost.total.backward()
    assert lost.total.item() == 0.0 and lost.parts["recall"] == 0.0
    made.zero_grad()
    made.eval()


def test_official_weights_put_matches_where_they_are():
    """What ``network.MIDDLE`` is from: pictures moved by known homographies."""
    found = create(*PUBLISHED_MODELS["xfeat-star"], "test")
    try:
        found.load_published()
    except WeightsError as error:
        pytest.skip(f"the official weights cannot be had here: {error}")
    errors = []
    for seed in range(2):
        page = picture(seed=seed)
        moved = np.random.default_rng(seed).uniform(-30, 30, (4, 2)).astype(np.float32)
        corners = np.array([[0, 0], [639, 0], [639, 479], [0, 479]], np.float32)
        H = cv2.getPerspectiveTransform(corners, corners + moved)
        matches = found.match(to_tensor(page), to_tensor(cv2.warpPerspective(page, H, (640, 480))), long_side=640)
        there = warp_homography(torch.from_numpy(H)[None], matches.mkpts0[None].double())[0]
        errors.append(matches.mkpts1 - there)
    error = torch.cat(errors)
    assert len(error) > 500
    assert error.median(0).values.abs().max() < 0.4
    assert error.norm(dim=1).median() < 1.5
