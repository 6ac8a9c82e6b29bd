"""Efficient LoFTR: its parts against those of transformers' forward that are right, its loss, its borders."""

import math

import cv2
import numpy as np
import pytest
import torch
from few_steps import few_steps
from kornia.feature import XFeat
from plane_world import PlaneWorld
from safetensors.torch import save_file

from minima_core import weights
from minima_core.data.image_pairs import ImagePairs
from minima_core.data.pairs import PairSource
from minima_core.data.sampling import Item
from minima_core.errors import WeightsError
from minima_core.geometry.cells import cell_points
from minima_core.geometry.project import inside
from minima_core.io.images import to_tensor
from minima_core.manifest import file_sha256
from minima_core.matchers._semidense import gray, mutual_matches
from minima_core.matchers.eloftr.loss import FineTargets, fine_losses, fine_targets
from minima_core.matchers.eloftr.network import LENGTH, Fine, match_cells, pixel_offset, refine, subpixel
from minima_core.models import create
from minima_core.supervision.coarse import coarse_targets

SETTINGS = {"size": "small", "published": "outdoor", "long_side": 96, "max_keypoints": 500, "threshold": 0.0}


def matcher(**changes):
    torch.manual_seed(0)
    made = create("eloftr", SETTINGS | changes, "test")
    with torch.no_grad():  # statistics of a picture, or features are nearly constant
        made.train().network.efficientloftr(gray(torch.stack([picture(), picture(seed=1)]))[None])
    return made.eval()


def picture(h=96, w=96, seed=0):
    rng = np.random.default_rng(seed)
    page = cv2.resize(rng.uniform(0, 255, (h // 4, w // 4, 3)).astype(np.float32), (w, h))
    return to_tensor(np.clip(page, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def net():
    return matcher().network


@pytest.fixture(scope="module")
def coarse(net):
    everywhere = torch.ones(1, 144, dtype=torch.bool)
    with torch.no_grad():
        return match_cells(net, gray(picture()[None]), gray(picture(seed=1)[None]), everywhere, everywhere)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    world = PlaneWorld(tmp_path_factory.mktemp("world")).make()
    source = PairSource(world.index, world.raw, world.modalities, split="train", names=["infrared"])
    return matcher().training_data(source, max_keypoints=1, cache=tmp_path_factory.mktemp("cache"), workers=1)


def batch_of(data, count=2):
    return data.collate([data.sample(Item(k, "rgb", "rgb")) for k in range(count)])


@torch.no_grad()
def test_cells_match_as_in_transformers(net, coarse, monkeypatch):
    monkeypatch.setattr(net.config, "coarse_matching_threshold", 0.0)
    monkeypatch.setattr(net.config, "coarse_matching_border_removal", 0)
    _, scores, indices = net._coarse_matching(coarse.cells, 8.0)
    (_, i, j), ours = mutual_matches(coarse.confidence, 0.0)
    assert len(i) > 10
    assert torch.equal(indices[0, 1][i], j) and torch.equal(indices[0, 0][j], i)
    torch.testing.assert_close(scores[0, 1][i], ours)
    assert (indices[0, 1] >= 0).sum() == len(i)


@torch.no_grad()
def test_windows_and_parts_of_pixels_are_those_of_transformers(net, coarse):
    i, j = torch.tensor([0, 50, 143]), torch.tensor([143, 7, 20])
    fine = refine(net, coarse, (torch.zeros(3, dtype=torch.long), i, j))
    cells0, cells1 = net.refinement_layer(coarse.cells / 64**0.5, coarse.pyramid)
    assert cells1.shape[:3] == (1, 144, 100)
    window0, window1 = cells0[0, i], cells1[0, j]
    whole = window0[..., :-8] @ window1[..., :-8].mT / (window0.shape[-1] - 8)
    both = (whole.softmax(1) * whole.softmax(2)).reshape(3, 64, 10, 10)[..., 1:-1, 1:-1].reshape(3, 64, 64)
    torch.testing.assert_close(fine.probability, both)
    logits = window0[..., -8:] @ (window1[..., -8:] / 8**0.5).mT
    pixel0, pixel1 = torch.tensor([0, 30, 63]), torch.tensor([0, 9, 63])
    indices = torch.stack([pixel0, pixel1])[None, :, :, None]
    theirs = net._get_second_stage_fine_matching(indices, torch.zeros(1, 2, 3, 2), logits[None], 64, 1.0)
    torch.testing.assert_close(subpixel(fine, torch.arange(3), pixel0, pixel1), theirs[0, 1])


@torch.no_grad()
def test_large_features_are_refined_in_half_precision(net, coarse, monkeypatch):
    """Sums of products of features of 100 are beyond what float16 holds; over their number they are not."""
    ids = (torch.zeros(2, dtype=torch.long), torch.tensor([50, 90]), torch.tensor([50, 91]))
    signs = torch.randn(2, 64, 96, 96, generator=torch.Generator().manual_seed(0)).sign()
    monkeypatch.setattr(net.refinement_layer, "forward_pyramid", lambda *_: 100 * signs)
    whole = refine(net, coarse, ids)
    monkeypatch.setattr(net.refinement_layer, "forward_pyramid", lambda *_: (100 * signs).half())
    half = refine(net, coarse, ids)
    for found, expected in ((half.probability, whole.probability), (half.similarity, whole.similarity)):
        assert found.isfinite().all()
        torch.testing.assert_close(found.float(), expected, atol=0.01, rtol=0.01)


def test_window_lies_around_its_cell():
    assert pixel_offset(torch.tensor([0, 7, 63])).tolist() == [[-3.5, -3.5], [3.5, -3.5], [3.5, 3.5]]


def test_matches_of_images_of_two_sizes_lie_on_them():
    found = matcher().match(picture(96, 128), picture(64, 96, seed=1), long_side=128)
    assert len(found) > 0
    assert inside(found.mkpts0, (128, 96)).all() and inside(found.mkpts1, (96, 64)).all()
    assert len(matcher().match(picture(), picture(), max_keypoints=2)) == 2


def test_image_without_texture_has_no_matches():
    assert len(matcher().match(torch.full((3, 96, 96), 0.3), picture())) == 0


def test_weights_load_strictly(monkeypatch, tmp_path, net):
    other = matcher()
    monkeypatch.setattr(weights, "fetch_repository", lambda name: tmp_path)
    object.__setattr__(other.params, "size", "full")
    save_file({k: v + 1 for k, v in net.state_dict().items()}, tmp_path / "model.safetensors")
    path = tmp_path / "model.safetensors"
    assert other.load_published().source == {"zju-community/efficientloftr@main": file_sha256(path)}
    name = "refinement_layer.out_conv.weight"
    assert torch.equal(other.network.state_dict()[name], net.state_dict()[name] + 1)
    save_file({name: net.state_dict()[name]}, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="does not fit the network"):
        other.load_published()
    with pytest.raises(WeightsError, match="size small"):
        matcher().load_published()


@pytest.fixture
def xfeat(monkeypatch):
    """Return XFeat with weights that stand for the official ones, which a matcher on its backbone takes."""
    torch.manual_seed(2)
    net = XFeat().net
    for part in net.modules():  # statistics that differ from those that a network begins with
        if isinstance(part, torch.nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    monkeypatch.setattr(weights, "load", lambda name: dict(net.state_dict()))
    return net.eval()


def on_xfeat():
    torch.manual_seed(0)
    return create("eloftr", SETTINGS | {"size": "xfeat"}, "test")


@torch.no_grad()
@pytest.mark.parametrize("right", [128, 96])  # where the pictures end and padding begins
def test_on_xfeat_cells_start_as_its_descriptors(xfeat, right):
    made = on_xfeat()
    assert made.load_frozen().source.keys() == {"xfeat.pt"} and made.terms().commercial
    images = gray(torch.stack([picture(96, right), picture(96, right, seed=1)]))
    mask = torch.zeros(12, 16, dtype=torch.bool)
    mask[:, : right // 8] = True
    image0, image1 = torch.nn.functional.pad(images, (0, 128 - right))[:, None]
    coarse = match_cells(made.train().network, image0, image1, *[mask.flatten()[None]] * 2)
    if right == 128:  # XFeat's own norm would count the padding too
        expected = LENGTH * torch.nn.functional.normalize(xfeat(images)[0], dim=1)
        torch.testing.assert_close(coarse.cells[0], expected, atol=1e-3, rtol=1e-3)
    cosine = torch.einsum("chw,cij->hwij", *coarse.cells[0].div(LENGTH)).flatten(0, 1).flatten(1)
    logits = (40 * cosine)[mask.flatten()][:, mask.flatten()]
    found = coarse.confidence[0][mask.flatten()][:, mask.flatten()]
    torch.testing.assert_close(found, logits.softmax(0) * logits.softmax(1))
    assert coarse.confidence[0].sum() == pytest.approx(float(found.sum()))


def test_on_xfeat_training_changes_all_but_the_statistics_of_the_backbone(xfeat, data):
    made, batch = on_xfeat(), batch_of(data)
    made.load_frozen()
    groups = made.groups()
    assert sum(len(some) for some in groups.values()) == len(made.trainable())
    before = {name: value.clone() for name, value in made.state_dict().items()}
    rates = [{"params": groups["backbone"], "lr": 1e-4}, {"params": groups["matching"], "lr": 2e-3}]
    losses = few_steps(made.train(), batch, torch.optim.AdamW(rates))
    assert losses[-1].total < 0.9 * losses[0].total
    same = {name for name, value in made.state_dict().items() if torch.equal(value, before[name])}
    assert same == {name for name in before if ".xfeat." in name and name not in dict(made.named_parameters())}


def test_on_xfeat_weights_of_another_network_are_refused(xfeat, monkeypatch):
    monkeypatch.setattr(weights, "load", lambda name: {"block1.0.layer.0.weight": torch.zeros(1)})
    with pytest.raises(WeightsError, match=r"xfeat\.pt does not fit the network"):
        on_xfeat().load_frozen()
    with pytest.raises(WeightsError, match="size xfeat are published"):
        on_xfeat().load_published()


def authors_names(stages=(1, 1, 1, 1), layers=2):
    """Yield every name of the authors' network beside that of transformers, parameter names left out."""
    for s, blocks in enumerate(stages):
        for b in range(blocks):
            theirs, ours = (
                f"backbone.layer{s}." + (f"{b}." if s else ""),
                f"efficientloftr.backbone.stages.{s}.blocks.{b}.",
            )
            yield theirs + "rbr_identity", ours + "identity"
            for branch, conv in (("rbr_dense", "conv1"), ("rbr_1x1", "conv2")):
                yield f"{theirs}{branch}.conv", f"{ours}{conv}.conv"
                yield f"{theirs}{branch}.bn", f"{ours}{conv}.norm"
    parts = {
        "aggregate": "aggregation.q_aggregation",
        "norm1": "aggregation.norm",
        "q_proj": "attention.q_proj",
        "k_proj": "attention.k_proj",
        "v_proj": "attention.v_proj",
        "merge": "attention.o_proj",
        "mlp.0": "mlp.fc1",
        "mlp.2": "mlp.fc2",
        "norm2": "mlp.layer_norm",
    }
    for n in range(layers):
        for m, kind in enumerate(("self", "cross")):
            for theirs, ours in parts.items():
                yield (
                    f"loftr_coarse.layers.{2 * n + m}.{theirs}",
                    f"efficientloftr.local_feature_transformer.layers.{n}.{kind}_attention.{ours}",
                )
    yield "fine_preprocess.layer3_outconv", "refinement_layer.out_conv"
    for n, layer in enumerate(("layer2", "layer1")):
        ours = f"refinement_layer.out_conv_layers.{n}."
        yield f"fine_preprocess.{layer}_outconv", ours + "out_conv1"
        for place, part in ((0, "out_conv2"), (1, "batch_norm"), (3, "out_conv3")):
            yield f"fine_preprocess.{layer}_outconv2.{place}", ours + part


def test_minimas_weights_load_by_their_authors_names(monkeypatch, net):
    names = {ours: theirs for theirs, ours in authors_names()}
    state = {}
    for name, value in net.state_dict().items():
        module, _, parameter = name.rpartition(".")
        state[f"matcher.{names[module]}.{parameter}"] = value + 1
    other = matcher(published="minima")
    object.__setattr__(other.params, "size", "full")
    monkeypatch.setattr(weights, "load", lambda name: {"state_dict": state})
    assert other.load_published().source.keys() == {"minima_eloftr.ckpt"}
    assert all(torch.equal(value, net.state_dict()[name] + 1) for name, value in other.network.state_dict().items())
    del state["matcher.loftr_coarse.layers.3.merge.weight"]
    with pytest.raises(
        WeightsError, match=r"minima_eloftr\.ckpt does not fit the network .*layers\.1\.cross_attention"
    ):
        other.load_published()


def test_fine_targets_of_a_plane_lie_where_it_moved(data, tmp_path):
    data = ImagePairs(data.pairs, cache=tmp_path, side=128, fit="pad", multiple=32)
    batch = batch_of(data, 1)  # the wall moves 5 px of 192, 10 / 3 of 128
    ids = coarse_targets(batch).matches()
    targets = fine_targets(batch, ids)
    assert len(targets.m) > 30 * len(ids[0])
    points = cell_points(16, 16)
    point0 = points[ids[1][targets.m]] + pixel_offset(targets.pixel0)
    point1 = points[ids[2][targets.m]] + pixel_offset(targets.pixel1) + targets.offset
    torch.testing.assert_close(
        (point1 - point0).abs(), torch.tensor([10 / 3, 0.0]).expand(len(point0), 2), atol=1e-3, rtol=0
    )
    assert targets.offset.abs().max() <= 0.5 + 1e-4


def test_pixels_of_a_matched_cell_are_supervised_as_far_as_the_image_goes(data):
    batch = batch_of(data, 1)
    b_ids, i_ids, j_ids = coarse_targets(batch).matches()
    row = i_ids // 12 == 5  # whose windows reach from pixel 36 to 43
    batch.mask0[:, 41:] = False  # as where an image was turned
    targets = fine_targets(batch, (b_ids[row], i_ids[row], j_ids[row]))
    assert set((targets.pixel0 // 8).tolist()) == {0, 1, 2, 3, 4}


def test_fine_losses_by_hand():
    # even logits: the expected offset is zero; p = 0.5 of the true pixels: ln 2
    fine = Fine(torch.full((1, 64, 64), 0.5), torch.zeros(1, 64, 10, 10))
    targets = FineTargets(torch.zeros(1).long(), torch.tensor([9]), torch.tensor([18]), torch.tensor([[0.3, 0.4]]))
    pixel, part = fine_losses(fine, targets, torch.zeros(1).long(), 2)
    assert pixel.tolist() == pytest.approx([math.log(2), 0]) and part.tolist() == pytest.approx([0.25, 0])


def test_a_few_steps_lower_the_loss(data):
    made, batch = matcher(threshold=0.2).train(), batch_of(data)
    optimiser = torch.optim.AdamW(made.trainable(), lr=2e-3)
    losses = few_steps(made, batch, optimiser)
    assert losses[-1].total < 0.8 * losses[0].total
    parts = losses[-1].parts
    assert set(parts) == {"coarse", "pixel", "part", "recall"} and parts["part"] > 0
    assert losses[-1].total.item() == pytest.approx(parts["coarse"] + parts["pixel"] + 0.25 * parts["part"])


def test_a_short_training_leaves_a_matcher_that_matches(data):
    """Statistics that still hold what they began with made one that found nothing, whatever its training said."""
    torch.manual_seed(0)
    made = create("eloftr", SETTINGS | {"threshold": 0.2}, "test")
    optimiser = torch.optim.AdamW(made.trainable(), lr=1e-3)
    for step in range(20):
        losses = made.train().loss(
            data.collate([data.sample(Item((step + k) % len(data.pairs), "rgb", "rgb")) for k in (0, 1)])
        )
        optimiser.zero_grad()
        losses.total.backward()
        optimiser.step()
    batch = batch_of(data)
    with torch.no_grad():
        trained, used = (made.train(mode).loss(batch).parts for mode in (True, False))
    assert used["recall"] > 0.7 * trained["recall"] > 0.1
    found = made.match(batch.image0[0], batch.image1[0])
    assert len(found) > 10


def test_batch_without_truth_costs_nothing(data):
    made, batch = matcher().train(), batch_of(data)
    batch.depth0.zero_()
    batch.depth1.zero_()
    losses = made.loss(batch)
    assert losses.total == 0
    losses.total.backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


def test_half_precision_trains(data):
    made = matcher().train()
    with torch.autocast("cpu", torch.bfloat16):
        losses = made.loss(batch_of(data, 1))
    losses.total.backward()
    assert losses.total.isfinite() and losses.total.dtype == torch.float32
