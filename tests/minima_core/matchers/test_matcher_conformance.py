"""What every matcher promises, asked of all that are there, at sizes for a CPU and with random weights."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from minima_core.config import load_params
from minima_core.errors import WeightsError
from minima_core.geometry.project import inside
from minima_core.io.images import to_tensor
from minima_core.matchers.base import MATCHERS
from minima_core.models import PUBLISHED_MODELS, create

PARAMS = load_params(Path(__file__).resolve().parents[3] / "params.yaml")
SMALL = {
    "size": "small",
    "width": "tiny",
    "long_side": 128,
    "max_keypoints": 60,
    "coarse_side": 112,
    "fine_side": 128,
    "threshold": 0.001,
    "fine_threshold": 0.0,
    "filter_threshold": 0.0,
    "similarity": -1.0,
    "cells": 192,
    "certainty": 0.0,
}


def matcher(name, **changes):
    """Return a matcher with the settings of params.yaml, or as published, made small."""
    published = (settings for plugin, settings in PUBLISHED_MODELS.values() if plugin == name)
    settings = PARAMS["matcher"].get(name) or next(published)
    torch.manual_seed(1)
    small = {key: value for key, value in SMALL.items() if key in settings}
    made = create(name, settings | small | changes, "test")
    for norm in made.eval().modules():  # statistics of what they see: features of random weights would all but vanish
        if isinstance(norm, torch.nn.BatchNorm2d):
            norm.train().momentum = 1.0
    with torch.no_grad():
        made._match(*([made._extract(picture(96, 128, seed), 60)] for seed in (0, 1)), 60)
    return made.eval()


def picture(h, w, seed=0):
    rng = np.random.default_rng(seed)
    page = cv2.resize(rng.uniform(0, 255, (h // 6, w // 6, 3)).astype(np.float32), (w, h))
    return to_tensor(np.clip(page, 0, 255).astype(np.uint8))


# with a backbone of other layers, a matcher is another one
KINDS = {
    **{name: (name, {}) for name in MATCHERS.names()},
    "eloftr on XFeat": ("eloftr", {"size": "xfeat"}),
    "lightglue that moves its matches": ("lightglue", {"refine": True}),
}


@pytest.fixture(scope="module", params=KINDS)
def made(request):
    return request.param, of_kind(request.param)


def of_kind(kind):
    name, changes = KINDS[kind]
    made = matcher(name, **changes)
    if "size" in changes:  # XFeat with random weights describes all cells alike, nearly
        try:
            made.load_frozen()
        except WeightsError as error:
            pytest.skip(f"the official weights cannot be had here: {error}")
    return made


def test_matches_lie_on_images_of_two_sizes_and_are_no_more_than_asked_for(made):
    _, made = made
    image0, image1 = picture(96, 144), picture(120, 90)
    found = made.match(image0, image1)
    assert len(found) <= 60
    assert inside(found.mkpts0, (144, 96)).all() and inside(found.mkpts1, (90, 120)).all()
    assert found.mkpts0.shape == found.mkpts1.shape == (len(found), 2) and found.scores.shape == (len(found),)
    assert ((found.scores >= 0) & (found.scores <= 1)).all()
    assert len(made.match(image0, image1, max_keypoints=5)) <= 5


def test_matching_twice_gives_the_same(made):
    _, made = made
    image0, image1 = picture(96, 128), picture(96, 128).roll(8, -1)
    found, again = made.match(image0, image1), made.match(image0, image1)
    assert len(found) > 0
    assert torch.equal(found.mkpts0, again.mkpts0) and torch.equal(found.mkpts1, again.mkpts1)
    assert torch.equal(found.scores, again.scores)


def test_an_image_without_texture_has_no_matches(made):
    _, made = made
    blank = torch.full((3, 96, 128), 0.4)
    assert len(made.match(blank, picture(96, 128))) == len(made.match(blank, blank)) == 0


def test_an_image_of_few_pixels_is_no_error(made):
    _, made = made
    found = made.match(picture(12, 12), picture(96, 128))
    assert inside(found.mkpts0, (12, 12)).all()


def test_a_batch_of_several_sizes_gives_what_each_pair_gives(made):
    _, made = made
    blank = torch.full((3, 96, 128), 0.4)
    pairs = [
        (picture(96, 128, 2), picture(96, 128, 2).roll(8, -1)),
        (picture(120, 90, 3), picture(96, 128, 4)),
        (blank, picture(96, 128)),
        (picture(96, 128, 5), picture(96, 128, 5).roll(16, -1)),
        (picture(12, 12, 6), picture(120, 90, 3)),
    ]
    together, alone = made.match_batch(pairs), [made.match(*pair) for pair in pairs]
    assert len(together) == 5 and len(together[0]) > 0 and len(together[2]) == 0
    for some, one in zip(together, alone, strict=True):
        torch.testing.assert_close(some.scores, one.scores, atol=1e-3, rtol=0)
        ends, own = (torch.cat([found.mkpts0, found.mkpts1], 1) for found in (some, one))
        # in any order: scores of random weights tie to the sixth place
        apart = (ends[:, None] - own[None]).abs().amax(-1)
        assert len(ends) == 0 or max(apart.amin(0).max(), apart.amin(1).max()) < 0.01
    assert made.match_batch([]) == []


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_gives_close_matches(made, monkeypatch, precision):
    """Close in pixels too, which lie further apart than one in bfloat16 beyond 256; ties of random weights break."""
    _, made = made
    pair, how = (picture(240, 320), picture(240, 320).roll(8, -1)), {"long_side": 320, "max_keypoints": 1000}
    whole = made.match(*pair, **how)
    monkeypatch.setattr(made, "precision", precision)
    half = made.match(*pair, **how)
    assert half.mkpts0.dtype == half.scores.dtype == torch.float32
    ends, ends_half = (torch.cat([found.mkpts0, found.mkpts1], 1) for found in (whole, half))
    assert (torch.cdist(ends_half, ends).amin(1) < 1).float().mean() > 0.6


def test_compiling_changes_nothing_and_reaches_every_part_it_names(made, monkeypatch):
    """Torch's compiler itself takes minutes; what it is asked to compile is called through what it returns."""
    kind, _ = made
    fresh, pair = of_kind(kind), (picture(96, 128), picture(96, 128).roll(8, -1))
    before = fresh.match(*pair)
    called = []

    def compiled(call, **options):
        return lambda *given, **named: called.append((call.__self__, options)) or call(*given, **named)

    monkeypatch.setattr(torch, "compile", compiled)
    fresh.compile(dynamic=True)
    after = fresh.match(*pair)
    assert torch.equal(before.mkpts1, after.mkpts1) and torch.equal(before.scores, after.scores)
    assert {id(part) for part, _ in called} == {id(part) for part in fresh.compiled()}
    assert bool(called) == any(True for _ in fresh.parameters())  # SIFT has no network
    assert all(options == {"dynamic": True} for _, options in called)


# not of the others: in both LoFTRs image 1 attends to what image 0 has become, RoMa draws from its matches, and SIFT's
# ratio of best and second best is image 0's
def test_lightglue_has_swapped_matches_of_swapped_images():
    made = matcher("lightglue")
    image0, image1 = picture(96, 128), picture(96, 128).roll(8, -1)
    there, back = made.match(image0, image1), made.match(image1, image0)
    assert len(there) > 1  # few, of random weights
    pairs, swapped = torch.cat([there.mkpts0, there.mkpts1], 1), torch.cat([back.mkpts1, back.mkpts0], 1)
    assert sorted(pairs.tolist()) == sorted(swapped.tolist())
    torch.testing.assert_close(there.scores.sort().values, back.scores.sort().values)


def test_roma_warps_the_same_from_either_side():
    made = matcher("roma")
    with torch.inference_mode():
        coarse, fine = ([picture(side, side, seed)[None] for seed in (0, 1)] for side in (112, 128))
        there, certain = made.dense((coarse[0], coarse[1]), (fine[0], fine[1]))
        back, certain_back = made.dense((coarse[1], coarse[0]), (fine[1], fine[0]))
    half = there.shape[1] // 2
    torch.testing.assert_close(there[:, :half], back[:, half:].roll(2, 2), atol=1e-3, rtol=0)
    torch.testing.assert_close(certain[:, half:], certain_back[:, :half], atol=1e-3, rtol=0)
