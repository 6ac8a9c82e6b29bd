"""LightGlue against kornia's own assembly, and where its matches lie under a known homography.

The tests with published weights take them from the user's cache (``minima match`` fetches them) and skip without.
"""

import cv2
import numpy as np
import pytest
import torch
from kornia.feature import LightGlue as KorniaLightGlue
from kornia.feature import XFeat as KorniaXFeat
from plane_world import random_matcher

from minima_core import weights
from minima_core.geometry.homography import warp_homography
from minima_core.io.images import to_tensor
from minima_core.matchers.lightglue.extractors import EXTRACTORS, strongest
from minima_core.matchers.lightglue.network import FILES, convert
from minima_core.models import load_matcher


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
    cached("xfeat.pt", FILES["xfeat"])
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
    ("name", "median"), [("xfeat", 1.25), ("aliked", 0.5), ("disk", 0.6)]
)  # XFeat: whole pixels of cells
@pytest.mark.parametrize("size", [(288, 384), (283, 371)])  # the second is resized, by half pixels too
def test_matches_lie_where_the_homography_says(name, median, size):
    cached(EXTRACTORS[name].FILE, FILES[name])
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
