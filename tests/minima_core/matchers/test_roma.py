"""RoMa beside what its original (romatch 0.1.2, at tiny widths, on a CPU) gave under weights made from a formula."""

from pathlib import Path

import numpy as np
import pytest
import torch
from formula import weight
from torch.nn import functional as F

from minima_core.errors import WeightsError
from minima_core.matchers.base import MATCHERS
from minima_core.matchers.roma.backbones import VisionTransformer
from minima_core.matchers.roma.loss import dense_loss
from minima_core.matchers.roma.matcher import WIDTHS, Roma
from minima_core.matchers.roma.network import Network, Widths, chosen_place, normalised
from minima_core.matchers.roma.refiner import local_correlation
from minima_core.matchers.roma.sampling import balanced_sample, density
from minima_core.supervision.dense import DenseTargets

RECORDED = np.load(Path(__file__).parent / "recorded" / "roma.npz")
SETTINGS = {
    "width": "tiny",
    "published": "outdoor",
    "long_side": 64,
    "max_keypoints": 100,
    "coarse_side": 56,
    "fine_side": 64,
    "threshold": 0.05,
}


def picture(side, seed):
    small = np.random.default_rng(seed).random((1, 3, 12, 12), dtype=np.float32)
    return F.interpolate(torch.from_numpy(small), (side, side), mode="bicubic").clamp(0, 1)


def tiny():
    return Roma(Roma.Params(**SETTINGS))


@pytest.fixture(scope="module")
def matcher():
    """The tiny matcher under weights from the formula, by the names in the published files."""
    matcher = tiny().eval()
    for part in (matcher.dino, matcher.network):
        part.load_state_dict({name: weight(name, t.shape) for name, t in part.state_dict().items()})
    return matcher


@pytest.fixture(scope="module")
def features(matcher):
    images = normalised(torch.cat([picture(56, 1), picture(56, 2)]))
    with torch.no_grad():
        return {**matcher.network.encoder["cnn"](images), 16: matcher.dino(images)}


def assert_recorded(found, name, tolerance=1e-4):
    """Compare with a recording, of which large arrays keep every so manieth value; sums are taken in another order."""
    expected = RECORDED[name]
    found = found.detach().numpy()
    if found.shape != expected.shape:
        found = found.reshape(-1)[:: found.size // 1500]
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_the_full_network_has_the_names_and_shapes_of_the_published_files():
    widths = Widths()
    with torch.device("meta"):
        parts = {
            "keys_roma": Network(widths),
            "keys_dino": VisionTransformer(widths.dim, widths.depth, widths.heads, widths.positions),
        }
    for name, part in parts.items():
        found = {f"{key} {list(tensor.shape)}" for key, tensor in part.state_dict().items()}
        assert found == set(RECORDED[name].tolist())


@pytest.mark.parametrize("stride", [16, 8, 4, 2, 1])
def test_backbones_give_what_the_original_gives(features, stride):
    assert_recorded(features[stride], f"features{stride}")


@torch.no_grad()
def test_coarse_matching_gives_what_the_original_gives(matcher, features):
    decoder = matcher.network.decoder
    found0, found1 = decoder.proj["16"](features[16]).chunk(2)
    posterior = decoder.gps["16"](found0, found1)
    choice, certainty = decoder.embedding_decoder(posterior, found0)
    assert_recorded(posterior, "posterior")
    assert_recorded(choice, "choice")
    assert_recorded(certainty, "choice_certainty")
    assert_recorded(chosen_place(30 * choice), "place", 1e-3)


@torch.no_grad()
def test_refiners_give_what_the_original_gives(matcher, features):
    decoder = matcher.network.decoder
    flow = torch.from_numpy(np.random.default_rng(9).uniform(-1.1, 1.1, (1, 2, 7, 7)).astype(np.float32))
    coarse = decoder.proj["8"](features[8]).chunk(2)
    assert_recorded(local_correlation(*coarse, flow, 3), "correlation")
    assert_recorded(torch.cat(decoder.conv_refiner["8"](*coarse, flow, 0.7), 1), "refined8")
    fine = decoder.proj["2"](features[2]).chunk(2)
    flow = F.interpolate(flow, (28, 28), mode="bilinear")
    assert_recorded(torch.cat(decoder.conv_refiner["2"](*fine, flow, 0.7), 1), "refined2")


@torch.no_grad()
def test_every_stride_gives_what_the_original_gives(matcher):
    estimates = matcher.network(matcher.dino, picture(56, 1), picture(56, 2), symmetric=True)
    assert list(estimates) == [16, 8, 4, 2, 1]
    for stride, estimate in estimates.items():
        assert_recorded(estimate.flow, f"flow{stride}")
        assert_recorded(estimate.certainty, f"certainty{stride}")


@torch.no_grad()
def test_the_refined_warp_is_the_originals(matcher):
    warp, certainty = matcher.dense((picture(56, 1), picture(56, 2)), (picture(64, 3), picture(64, 4)))
    # the original lays both directions side by side
    beside = [torch.cat(x[0].unflatten(0, (2, 64, 64)).unbind(), 1) for x in (warp, certainty)]
    assert_recorded(beside[0], "warp")
    assert_recorded(beside[1], "certainty")


@torch.no_grad()
def test_the_loss_is_the_originals(matcher):
    estimates = matcher.network(matcher.dino, picture(56, 1), picture(56, 2))
    flows = {estimate.flow.shape[-1]: estimate.flow for estimate in estimates.values()}

    def targets(size):
        generator = np.random.default_rng(size[1])
        off = torch.from_numpy(generator.uniform(-1, 1, (1, *size, 2)).astype(np.float32))
        certain = torch.from_numpy((generator.random((1, *size)) < 0.6).astype(np.float32))
        return DenseTargets(flows[size[0]].permute(0, 2, 3, 1) + 0.02 * off, certain)

    assert_recorded(dense_loss(estimates, targets)[0], "loss")


def test_matches_lie_on_both_images_and_are_the_same_every_time(matcher):
    images = torch.rand(3, 40, 64), torch.rand(3, 64, 48)
    found, again = (matcher.match(*images, max_keypoints=50) for _ in range(2))
    assert len(found) == 50
    for points, image in ((found.mkpts0, images[0]), (found.mkpts1, images[1])):
        size = torch.tensor([image.shape[2], image.shape[1]])
        assert bool(((points >= 0) & (points <= size - 1)).all())
    assert torch.equal(found.mkpts1, again.mkpts1) and torch.equal(found.scores, again.scores)


def test_an_image_without_texture_has_no_dense_matches(matcher):
    assert len(matcher.match(torch.full((3, 64, 64), 0.3), torch.rand(3, 64, 64))) == 0


def test_features_that_are_not_finite_match_nothing_and_have_no_finite_loss(matcher, monkeypatch):
    """As float16 leaves them where it overflows: a step of training to be counted, no error that ends it."""
    monkeypatch.setattr(matcher.dino, "forward", lambda image: torch.full((len(image), 16, 4, 4), torch.inf))
    assert len(matcher.match(torch.rand(3, 56, 56), torch.rand(3, 56, 56))) == 0
    estimates = matcher.network(matcher.dino, picture(56, 1), picture(56, 2))
    truth = {h: DenseTargets(torch.zeros(1, h, h, 2), torch.ones(1, h, h)) for h in (4, 7, 14, 28, 56)}
    assert dense_loss(estimates, lambda size: truth[size[0]])[0].isnan()


def test_nothing_is_drawn_where_nothing_is_certain():
    assert len(balanced_sample(torch.rand(30, 4), torch.zeros(30), 10, 0.05)) == 0


def test_draws_spread_over_the_images_and_leave_lone_matches_out():
    crowd, sparse = 0.01 * torch.rand(900, 4), 0.5 + 0.01 * torch.rand(100, 4)
    alone = torch.tensor([[-0.9, -0.9, 0.9, 0.9]])
    warp = torch.cat([crowd, sparse, alone])
    assert density(warp)[-1] == pytest.approx(1)
    drawn = balanced_sample(warp, torch.full((1001,), 0.9), 150, 0.05)
    assert len(drawn.unique()) == 150
    assert 1000 not in drawn
    assert ((drawn >= 900).sum() / 150) > 0.2  # a tenth of the candidates, half of the inverse density


def test_a_tiny_roma_says_that_it_has_no_published_weights():
    with pytest.raises(WeightsError, match="width: full"):
        tiny().load_published()
    assert MATCHERS.get("roma") is Roma


def test_published_weights_load_strictly(monkeypatch, tmp_path, matcher):
    monkeypatch.setenv("MINIMA_WEIGHTS", str(tmp_path))
    monkeypatch.setitem(WIDTHS, "full", WIDTHS["tiny"])
    full = Roma(Roma.Params(**SETTINGS | {"width": "full", "published": "minima"}))
    torch.save(matcher.dino.state_dict(), tmp_path / "dinov2_vitl14_pretrain.pth")
    torch.save(matcher.network.state_dict(), tmp_path / "minima_roma.pth")
    origin = full.load_published()
    assert set(origin.source) == {"dinov2_vitl14_pretrain.pth", "minima_roma.pth"} and not origin.licence.commercial
    assert all(torch.equal(full.state_dict()[name], tensor) for name, tensor in matcher.state_dict().items())
    torch.save({"decoder": torch.zeros(1)}, tmp_path / "minima_roma.pth")
    with pytest.raises(WeightsError, match=r"minima_roma\.pth does not fit"):
        full.load_published()
