from __future__ import annotations

import pytest
import torch

from minima_core.errors import ConfigError, DataError
from minima_core.matchers.base import Matcher
from minima_core.types import Matches


class Brightest(Matcher):
    """Matches the brightest pixels of two images, in order."""

    def __init__(self) -> None:
        super().__init__(Matcher.Params(long_side=32, max_keypoints=5))
        self.weight = torch.nn.Parameter(torch.ones(1))

    def _extract(self, image, max_keypoints):
        order = image.mean(0).flatten().argsort(descending=True)[:max_keypoints]
        return torch.stack([order % image.shape[2], order // image.shape[2]], -1).float()

    def _match(self, features0, features1, max_keypoints):
        return [Matches(i, j, torch.ones(len(i))) for i, j in zip(features0, features1, strict=True)]

    def terms(self):
        raise NotImplementedError

    def load_published(self):
        raise NotImplementedError

    def training_data(self, pairs, *, max_keypoints, cache, workers):
        raise NotImplementedError

    def loss(self, batch):
        raise NotImplementedError


class Whole(Brightest):
    """The same, looking at both images at once."""

    def _extract(self, image, max_keypoints):
        return Matcher._extract(self, image, max_keypoints)

    def _match(self, features0, features1, max_keypoints):
        found = ([Brightest._extract(self, image, max_keypoints) for image in side] for side in (features0, features1))
        return Brightest._match(self, *found, max_keypoints)


def image(seed: int, size: tuple[int, int]) -> torch.Tensor:
    return torch.rand(3, size[1], size[0], generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("matcher", [Brightest(), Whole()])
def test_extracting_first_gives_what_matching_gives(matcher):
    images = image(0, (64, 48)), image(1, (50, 64))
    together = matcher.match(*images, max_keypoints=7)
    apart = matcher.match_features(*(matcher.extract(i, max_keypoints=7) for i in images))
    assert len(together) == 7
    assert torch.equal(together.mkpts0, apart.mkpts0)
    assert torch.equal(together.mkpts1, apart.mkpts1)


def test_points_come_back_in_original_pixels():
    spot = torch.zeros(3, 60, 80)
    spot[:, 40:44, 20:24] = 1.0  # becomes one pixel at a quarter of the size: (5, 10)
    found = Brightest().match(spot, spot, max_keypoints=1, long_side=20)
    assert found.mkpts0.tolist() == [[5 * 4 + 1.5, 10 * 4 + 1.5]]


def test_an_image_without_texture_has_no_matches():
    assert len(Brightest().match(torch.full((3, 20, 30), 0.5), image(0, (30, 20)))) == 0


def test_batch_statistics_begin_as_those_of_the_first_batches():
    """Two batches are averaged evenly, and later ones count as the network was made to count them."""
    matcher = Brightest()
    matcher.norm = torch.nn.BatchNorm2d(1, momentum=0.3)
    batches = [torch.full((1, 1, 2, 2), value) for value in (4.0, 8.0)]
    for batch in batches:
        matcher.train().norm(batch)
    assert float(matcher.norm.running_mean) == 6 and float(matcher.norm.running_var) == 0
    matcher.eval().train()
    assert matcher.norm.momentum == 0.5
    matcher.norm.num_batches_tracked += 100
    assert matcher.train().norm.momentum == 0.3
    matcher.norm.eval()
    assert not matcher.norm.training


BLEMISHED = image(2, (8, 8)).index_put((torch.tensor(1), torch.tensor(4), torch.tensor(5)), torch.tensor(torch.nan))


@pytest.mark.parametrize("bad", [torch.rand(1, 8, 8), torch.rand(8, 8), BLEMISHED, BLEMISHED.nan_to_num(-torch.inf)])
def test_what_is_no_image_is_refused(bad):
    with pytest.raises(DataError, match="an image of shape"):
        Brightest().match(bad, image(0, (8, 8)))


@pytest.mark.parametrize("how", [{"max_keypoints": 0}, {"max_keypoints": -1}, {"long_side": 0}, {"long_side": -4}])
def test_a_number_below_one_is_refused(how):
    (name,) = how
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, .* not {how[name]}"):
        Brightest().match(image(0, (8, 8)), image(1, (8, 8)), **how)


class Turned(Brightest):
    """Finds the brightest pixel of an image, and is surer the nearer it lies to that of the first."""

    def _match(self, features0, features1, max_keypoints):
        def sure(i, j):
            return 1 / (1 + (i - j).norm(dim=1))

        return [Matches(i, j, sure(i, j)) for i, j in zip(features0, features1, strict=True)]


@pytest.mark.parametrize("quarters", range(4))
def test_an_image_is_matched_in_the_turn_that_fits_and_points_are_its_own(quarters):
    images = [image(seed, (32, 24)) for seed in (0, 1)]
    turned = [torch.rot90(some, -quarters, (1, 2)) for some in images]
    found = Turned().match_in_turns(list(zip(images, turned, strict=True)), max_keypoints=1)
    for some, other, matches in zip(images, turned, found, strict=True):
        assert matches.scores.tolist() == [1]
        (x0, y0), (x1, y1) = matches.mkpts0[0].int().tolist(), matches.mkpts1[0].int().tolist()
        assert torch.equal(some[:, y0, x0], other[:, y1, x1])


def test_an_image_without_texture_has_no_matches_in_any_turn():
    images = image(0, (32, 24)), torch.full((3, 20, 30), 0.5)
    assert [len(found) for found in Turned().match_in_turns([images, images[::-1]])] == [0, 0]
