"""What moves matches: windows lie where their points do, contrast alone counts, and swapped images swap the result."""

import numpy as np
import pytest
import torch
from plane_world import random_matcher
from skimage import data

from minima_core.errors import ConfigError
from minima_core.geometry.coords import rescale_points
from minima_core.io.images import to_tensor
from minima_core.matchers.lightglue import refiner
from minima_core.matchers.lightglue.refiner import REACH, STRIDE, Refiner, _between, _windows
from minima_core.types import Matches


@pytest.fixture(scope="module")
def made():
    with torch.random.fork_rng():
        torch.manual_seed(3)
        made = Refiner()
    with torch.no_grad():
        for part in (made.judge[0], made.judge[-1]):  # random weights would say almost nothing
            part.weight *= 20
    return made.eval()


def gray(top=0, left=0, height=96, width=128):
    return to_tensor(data.astronaut()[top : top + height, left : left + width]).mean(0)[None, None]


@torch.no_grad()
def test_a_window_holds_what_lies_about_its_point_and_at_the_margin_copies():
    ys, xs = torch.meshgrid(torch.arange(20.0), torch.arange(30.0), indexing="ij")
    kpts = torch.tensor([[20.0, 14.0], [31.3, 20.8]])
    found, share = _windows(torch.stack([xs, ys], -1), kpts, 5)
    wide = _between(found, share)
    own = rescale_points(kpts, (1 / STRIDE, 1 / STRIDE))
    to = torch.arange(-2.0, 3)
    torch.testing.assert_close(wide[..., 0], (own[:, 0, None, None] + to).expand(2, 5, 5))
    torch.testing.assert_close(wide[..., 1], (own[:, 1, None, None] + to[:, None]).expand(2, 5, 5))
    corner, _ = _windows(torch.stack([xs, ys], -1), torch.tensor([[0.0, 0.0]]), 5)
    assert corner.min() == 0 and (corner[0, :2] == corner[0, 2]).all()


@torch.no_grad()
def test_contrast_alone_counts(made):
    page = gray(100, 200)
    once, darker = made.describe(page), made.describe(0.2 + 0.5 * page)
    inner = (slice(None), slice(8, -8), slice(8, -8))
    assert float((once - darker)[inner].abs().mean()) < 0.05 * float(once[inner].abs().mean())
    assert made.describe(torch.full((1, 1, 96, 128), 0.4)).isfinite().all()


@torch.no_grad()
@pytest.mark.parametrize("size", [(96, 128), (95, 127), (33, 40)])
def test_sides_need_not_be_even(made, size):
    found = made.describe(gray(0, 0, *size))
    assert found.shape[1:3] == (-(-size[0] // STRIDE), -(-size[1] // STRIDE))


def drawn(n, seed, width=128, height=96):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.uniform((0, 0), (width - 1, height - 1), (n, 2)).astype(np.float32))


@torch.no_grad()
def test_swapped_images_have_swapped_moves_and_none_is_beyond_reach(made):
    maps = [made.describe(gray(100, left))[0] for left in (200, 206)]
    kpts0, kpts1, scores = drawn(50, 0), drawn(50, 1), torch.rand(50)
    there = made.move(Matches(kpts0, kpts1, scores), *maps)
    back = made.move(Matches(kpts1, kpts0, scores), *maps[::-1])
    assert torch.equal(there.mkpts0, back.mkpts1) and torch.equal(there.mkpts1, back.mkpts0)
    assert torch.equal(there.scores, scores)
    moved = torch.cat([there.mkpts0 - kpts0, there.mkpts1 - kpts1])
    assert 0.1 < float(moved.abs().max()) <= REACH * STRIDE / 2


@torch.no_grad()
def test_many_matches_are_moved_as_few_are(made, monkeypatch):
    maps = [made.describe(gray(100, left))[0] for left in (200, 206)]
    matches = Matches(drawn(50, 0), drawn(50, 1), torch.rand(50))
    whole = made.move(matches, *maps)
    monkeypatch.setattr(refiner, "_AT_ONCE", 16)
    parts = made.move(matches, *maps)
    torch.testing.assert_close(whole.mkpts0, parts.mkpts0, atol=1e-4, rtol=0)
    none = made.move(Matches.empty(), *maps)
    assert len(none) == 0


def test_a_matcher_moves_what_it_matched():
    """Its matches are those of the same weights without a refiner, both ends moved."""
    still, moving = random_matcher(), random_matcher(refine=True)
    moving.load_state_dict(moving.state_dict() | still.state_dict())
    with torch.no_grad():
        moving.refiner.prior[REACH, REACH + 2] += 30  # two cells to the right, whatever the images show
    pages = [to_tensor(data.astronaut()[100:196, left : left + 128]) for left in (200, 206)]
    before, after = (some.match(*pages, long_side=128) for some in (still, moving))
    assert len(before) == len(after) > 0  # few, of random weights
    for kpts, moved in ((before.mkpts0, after.mkpts0), (before.mkpts1, after.mkpts1)):
        there = kpts + torch.tensor([STRIDE * 2 / 2, 0.0])
        assert (moved[:, 1] - kpts[:, 1]).abs().max() < 1e-3
        assert (moved[:, 0] - there[:, 0].clamp(max=127)).abs().max() < 1e-3
    moving.refiner = None
    assert torch.equal(moving.match(*pages, long_side=128).mkpts1, before.mkpts1)


@pytest.mark.parametrize("load", ["load_published", "load_frozen"])
def test_there_are_no_published_weights(load):
    with pytest.raises(ConfigError, match=r"refine to false, and train them .*tasks\.train_refiner"):
        getattr(random_matcher(refine=True), load)()
