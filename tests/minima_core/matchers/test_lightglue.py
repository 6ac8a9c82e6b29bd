"""LightGlue against kornia's own assembly, and where its matches lie under a known homography.

The tests with published weights take them from the user's cache (``minima match`` fetches them) and skip without.
"""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from kornia.feature import LightGlue as KorniaLightGlue
from kornia.feature import XFeat as KorniaXFeat
from plane_world import random_matcher
from torch.nn import functional as F

from minima_core import weights
from minima_core.errors import ConfigError, WeightsError
from minima_core.geometry.homography import warp_homography
from minima_core.io.images import to_tensor
from minima_core.matchers.lightglue.extractors import EXTRACTORS, between_pixels, strongest
from minima_core.matchers.lightglue.network import FILES, convert
from minima_core.models import create, load_matcher


def picture(h=384, w=512):
    """Return a page of text-like blobs and boxes, (H, W, 3) uint8."""
    rng = np.random.default_rng(4)
    page = cv2.resize(
        rng.uniform(70, 180, (h // 16, w // 16, 3)).astype(np.float32), (w, h), interpolation=cv2.INTER_CUBIC
    )
    for _ in range(140):
        x, y, a, b = (int(n) for n in rng.integers((0, 0, 6, 6), (w, h, 50, 50)))
        cv2.rectangle(page, (x, y), (x + a, y + b), rng.uniform(0, 255, 3).tolist(), -1 if rng.random() < 0.6 else 2)
    return np.clip(cv2.GaussianBlur(page, (0, 0), 0.8) + rng.normal(0, 2, page.shape), 0, 255).astype(np.uint8)


def cached(*names):
    """Skip unless the published files are in the cache or the user's folder."""
    for name in names:
        if weights._override(name, weights.PUBLISHED[name]) is None and not (weights.cache_folder() / name).is_file():
            pytest.skip(f"{name} is not in {weights.cache_folder()}; run `minima match` once to fetch it")


def kornias(matcher, image0, image1, n):
    """Match with kornia's classes put together as its users do."""
    extractor, net = (
        KorniaXFeat().eval(),
        KorniaLightGlue(
            None,
            **{k: v for k, v in KorniaLightGlue.features["xfeat"].items() if k != "weights"} | {"width_confidence": -1},
        ),
    )
    extractor.load_state_dict(matcher.extractor.net.state_dict())
    net.load_state_dict(matcher.network.state_dict())
    net.conf.filter_threshold = matcher.params.filter_threshold
    with torch.inference_mode():
        found = [extractor.detectAndCompute(image[None], top_k=n)[0] for image in (image0, image1)]
        size = torch.tensor([[image0.shape[2], image0.shape[1]]])
        data = {
            f"image{k}": {"keypoints": f["keypoints"][None], "descriptors": f["descriptors"][None], "image_size": size}
            for k, f in enumerate(found)
        }
        answer = net.eval()(data)
    i, j = answer["matches"][0].T
    return found[0]["keypoints"][i], found[1]["keypoints"][j], answer["scores"][0]


def test_equals_kornias_assembly_with_made_up_weights():
    matcher = random_matcher(long_side=512, max_keypoints=300)
    image0, image1 = to_tensor(picture()), to_tensor(np.roll(picture(), (16, 8), (0, 1)))
    ours, theirs = matcher.match(image0, image1), kornias(matcher, image0, image1, 300)
    assert len(ours) > 0
    assert torch.equal(ours.mkpts0, theirs[0].float()) and torch.equal(ours.mkpts1, theirs[1].float())
    torch.testing.assert_close(ours.scores, theirs[2])


def test_equals_kornias_assembly_with_published_weights():
    cached("xfeat.pt", FILES["rgb"]["xfeat"])
    matcher = load_matcher("xfeat-lightglue").matcher
    image0, image1 = to_tensor(picture()), to_tensor(np.roll(picture(), (16, 8), (0, 1)))
    ours = matcher.match(image0, image1, long_side=512, max_keypoints=600)
    theirs = kornias(matcher, image0, image1, 600)
    assert len(ours) > 200
    assert torch.equal(ours.mkpts0, theirs[0].float()) and torch.equal(ours.mkpts1, theirs[1].float())


def homography(w, h):
    turn = np.vstack([cv2.getRotationMatrix2D((w / 2, h / 2), 5, 1.06), [0, 0, 1]])
    turn[0, 2] += 3.3
    turn[2, 0] = 4e-5
    return turn


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "median"), [("xfeat", 1.25), ("aliked", 0.5), ("disk", 0.6), ("superpoint", 0.75)]
)  # XFeat: whole pixels of cells
@pytest.mark.parametrize("size", [(288, 384), (283, 371)])  # the second is resized, by half pixels too
def test_matches_lie_where_the_homography_says(name, median, size):
    cached(EXTRACTORS[name].FILE, FILES["rgb"][name])
    h, w = size
    image0 = picture(h, w)
    H_0to1 = homography(w, h)
    image1 = cv2.warpPerspective(image0, H_0to1, (w, h), borderMode=cv2.BORDER_REFLECT)
    found = load_matcher(f"{name}-lightglue").match(image0, image1, long_side=max(size), max_keypoints=300)
    offset = found.mkpts1.double() - warp_homography(torch.from_numpy(H_0to1), found.mkpts0.double())
    error = offset.norm(dim=1)
    assert len(found) > 100
    assert error.median() < median
    near = offset[error < 3]
    assert len(near) > 0.8 * len(found)
    assert near.mean(0).abs().max() < 0.3  # no bias: a half pixel lost in resizing would show


@pytest.mark.slow
def test_keypoints_between_pixels_lie_nearer_to_where_the_homography_says():
    cached("xfeat.pt", FILES["rgb"]["xfeat"])
    image0 = picture(288, 384)
    H_0to1 = homography(384, 288)
    image1 = cv2.warpPerspective(image0, H_0to1, (384, 288), borderMode=cv2.BORDER_REFLECT)
    matcher, errors = load_matcher("xfeat-lightglue"), []
    for subpixel in (False, True):
        matcher.matcher.extractor.subpixel = subpixel
        found = matcher.match(image0, image1, long_side=384, max_keypoints=300)
        errors.append((found.mkpts1 - warp_homography(torch.from_numpy(H_0to1).float(), found.mkpts0)).norm(dim=1))
    assert errors[1].median() < 0.95 * errors[0].median()


def test_a_keypoint_is_moved_to_the_middle_of_its_peak():
    truth = torch.tensor([[10.3, 12.0], [30.0, 7.6], [22.45, 25.45], [40.0, 30.0]])
    ys, xs = torch.meshgrid(torch.arange(40.0), torch.arange(50.0), indexing="ij")
    peaks = [torch.exp(-((xs - x) ** 2 + (ys - y) ** 2) / (2 * 0.7**2)) for x, y in truth]
    whole = truth.round().long()
    found = between_pixels(torch.stack(peaks).sum(0)[None, None] + 1e-6, whole)
    assert found.dtype == torch.float32
    assert ((found - truth).norm(dim=1)[:3] < 0.3 * (whole - truth).norm(dim=1)[:3]).all()
    torch.testing.assert_close(found[3], truth[3])  # in the middle already


def test_a_keypoint_at_the_edge_stays_by_it():
    heatmap = torch.rand(1, 1, 6, 9, generator=torch.Generator().manual_seed(0)) + 1e-3
    corners = torch.tensor([[0, 0], [8, 0], [0, 5], [8, 5]])
    assert ((between_pixels(heatmap, corners) - corners).abs() < 1).all()
    assert between_pixels(heatmap, corners[:0]).shape == (0, 2)
    torch.testing.assert_close(between_pixels(torch.ones(1, 1, 6, 9), corners), corners.float())


def test_only_xfeat_has_keypoints_between_pixels():
    given = {"extractor": "aliked", "subpixel": True, "long_side": 64, "max_keypoints": 9, "filter_threshold": 0.1}
    with pytest.raises(ConfigError, match="subpixel is for xfeat; the keypoints of aliked stay where it finds them"):
        create("lightglue", given, "test")


def test_keypoints_map_back_with_the_half_pixel():
    """A matcher at half the size: keypoint k of the small image is the centre 2 k + 0.5 of the large one."""
    matcher = random_matcher(long_side=256, max_keypoints=200)
    image = to_tensor(picture())
    found = matcher.match(image, image)
    assert len(found) > 0
    torch.testing.assert_close(found.mkpts0 % 2, torch.full_like(found.mkpts0, 0.5))


def test_strongest_keeps_the_order_of_equals():
    assert strongest(torch.tensor([0.2, 0.9, 0.2, 0.9, 0.1]), 4).tolist() == [1, 3, 0, 2]


def test_fewer_keypoints_are_the_first_of_more():
    matcher = random_matcher(long_side=512)
    image = to_tensor(picture())
    few, many = matcher.extractor.extract(image, 50), matcher.extractor.extract(image, 200)
    assert torch.equal(few.kpts, many.kpts[:50]) and torch.equal(few.desc, many.desc[:50])


def test_extractor_is_frozen():
    matcher = random_matcher().train()
    assert not any(module.training for module in matcher.extractor.modules())
    assert {id(p) for p in matcher.trainable()} == {id(p) for p in matcher.network.parameters()}


@pytest.mark.parametrize("name", sorted(EXTRACTORS))
def test_sides_must_be_multiples(name):
    extractor = EXTRACTORS[name]().freeze()
    if extractor.SIZE_MULTIPLE > 1:
        with pytest.raises(ValueError, match="not multiples"):
            extractor.extract(torch.rand(3, 33, 64), 10)


def test_old_names_are_translated_and_foreign_parts_dropped():
    old = {
        "matcher.self_attn.0.Wqkv.bias": 1, "cross_attn.1.to_qk.bias": 2, "extractor.x": 3,
        "log_assignment.1.r": 4,
        "transformers.1.self_attn.Wqkv.bias": 5,
    }  # fmt: skip
    assert convert(old, 2) == {
        "transformers.0.self_attn.Wqkv.bias": 1,
        "transformers.1.cross_attn.to_qk.bias": 2,
        "transformers.1.self_attn.Wqkv.bias": 5,
    }


def superpoint(seed=0, **settings):
    """Return LightGlue on SuperPoint, with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        given = {"extractor": "superpoint", "long_side": 192, "max_keypoints": 100, "filter_threshold": 0.0}
        return create("lightglue", given | settings, "test").eval()


@torch.inference_mode()
def test_superpoint_finds_what_transformers_finds():
    """All of it, but for the margin that transformers leaves free on two sides of four."""
    matcher, image = superpoint(), to_tensor(picture(96, 128))
    found = matcher.extractor.extract(image, 10_000)
    grey = (image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)
    theirs = matcher.extractor.net(grey.expand(1, 3, -1, -1))
    kpts = (theirs.keypoints[0] * torch.tensor([128, 96])).round()
    inner = (kpts < torch.tensor([124, 92])).all(1)
    assert 50 < inner.sum() < len(kpts)
    order = strongest(theirs.scores[0][inner], 10_000)
    torch.testing.assert_close(found.scores, theirs.scores[0][inner][order])
    assert found.kpts.min() >= 4 and (found.kpts.amax(0) < torch.tensor([124, 92])).all()
    ours = {tuple(p): d for p, d in zip(found.kpts.tolist(), found.desc, strict=True)}  # scores may be equal
    assert ours.keys() == {tuple(p) for p in kpts[inner].tolist()}
    for point, desc in zip(kpts[inner].tolist(), theirs.descriptors[0][inner], strict=True):
        torch.testing.assert_close(ours[tuple(point)], desc, atol=1e-5, rtol=0)


def test_superpoint_matches_and_finds_nothing_in_nothing():
    matcher, image = superpoint(), to_tensor(picture(96, 128))
    assert len(matcher.match(image, image)) > 20
    assert len(matcher.extractor.extract(image, 0).scores) == 0


def authors_names(state):
    """Return SuperPoint's weights under the names in its authors' file."""
    new = {"keypoint_decoder.conv_score_": "convP", "descriptor_decoder.conv_descriptor_": "convD"}
    new |= {f"encoder.conv_blocks.{k}.conv_": f"conv{k + 1}" for k in range(4)}
    return {
        name.replace(old, short): value for name, value in state.items() for old, short in new.items() if old in name
    }


def test_superpoint_computes_what_its_authors_network_does():
    matcher, image = superpoint(), to_tensor(picture(96, 128))
    w = authors_names(matcher.extractor.net.state_dict())
    assert len(w) == 24 and matcher.extractor._weights(w).keys() == matcher.extractor.net.state_dict().keys()

    def conv(x, name):
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=w[f"{name}.weight"].shape[-1] // 2)

    x = (image * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(0)[None, None]
    with torch.inference_mode():
        for block in range(1, 5):  # DeTone et al., figure 3: pairs of convolutions, halved after the first three
            x = conv(conv(x, f"conv{block}a").relu(), f"conv{block}b").relu()
            x = F.max_pool2d(x, 2) if block < 4 else x
        cells = conv(conv(x, "convPa").relu(), "convPb").softmax(1)[:, :-1]
        heat = F.pixel_shuffle(cells, 8)[0, 0]
        dense = F.normalize(conv(conv(x, "convDa").relu(), "convDb"), dim=1)
        found = matcher.extractor.extract(image, 50)
    columns, rows = found.kpts.long().T
    torch.testing.assert_close(found.scores, heat[rows, columns])
    # as SuperGlue's and LightGlue's authors sample, half a pixel askew towards the far corner
    grid = (found.kpts - 3.5) / torch.tensor([123.5, 91.5]) * 2 - 1
    desc = F.normalize(F.grid_sample(dense, grid[None, None], align_corners=True)[0, :, 0], dim=0).T
    torch.testing.assert_close(found.desc, desc, atol=1e-5, rtol=0)


@pytest.fixture
def minimas_files(tmp_path, monkeypatch):
    """Files as MINIMA and SuperPoint's authors publish them, with made-up weights, and the matcher they are of."""
    source = superpoint(seed=3)
    torch.save(authors_names(source.extractor.net.state_dict()), tmp_path / "superpoint_v1.pth")
    made_up = replace(weights.PUBLISHED["superpoint_v1.pth"], sha256="")
    monkeypatch.setitem(weights.PUBLISHED, "superpoint_v1.pth", made_up)
    state = {k: v for k, v in source.network.state_dict().items() if k != "confidence_thresholds"}
    for i in range(9):
        for block in ("self_attn", "cross_attn"):
            new = f"transformers.{i}.{block}"
            state = {k.replace(new, f"{block}.{i}"): v for k, v in state.items()}
    assert "self_attn.8.Wqkv.weight" in state
    torch.save(state, tmp_path / "minima_lightglue.pth")
    monkeypatch.setenv("MINIMA_WEIGHTS", str(tmp_path))
    return source


def test_minimas_weights_load_by_their_own_names(minimas_files, tmp_path):
    loaded = load_matcher("minima-lightglue-superpoint")
    expected = minimas_files.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in loaded.matcher.state_dict().items())
    assert "MagicLeap" in loaded.licence
    assert not loaded.matcher.terms().commercial
    state = torch.load(tmp_path / "minima_lightglue.pth")
    torch.save({"model": {f"matcher.{k}": v for k, v in state.items()} | {"extractor.x": torch.zeros(1)}},
               tmp_path / "minima_lightglue.pth")  # fmt: skip
    assert load_matcher("minima-lightglue-superpoint").licence == loaded.licence
    del state["self_attn.4.Wqkv.bias"]
    torch.save(state, tmp_path / "minima_lightglue.pth")
    with pytest.raises(WeightsError, match=r"minima_lightglue\.pth does not fit the network"):
        load_matcher("minima-lightglue-superpoint")


def test_a_damaged_file_is_one_line(minimas_files, tmp_path):
    (tmp_path / "superpoint_v1.pth").write_bytes(b"<html>")
    with pytest.raises(WeightsError, match=r"superpoint_v1\.pth is no checkpoint"):
        load_matcher("minima-lightglue-superpoint")


def test_minima_has_no_weights_for_other_extractors():
    with pytest.raises(ConfigError, match="minima has published no weights for xfeat, only for superpoint"):
        superpoint(extractor="xfeat", published="minima")
