"""Joint training: what is drawn lies where its homography says, labels agree with those of one pair, the loss falls."""

import cv2
import numpy as np
import pytest
import torch
from joint_settings import JOINT
from skimage import data

from minima_core.errors import DataError
from minima_core.models import create
from minima_core.supervision.sparse import matches_from_homographies, matches_from_homography
from minima_core.tracking import NullTracker
from minima_core.training import checkpoint
from minima_core.training.joint import Album, Joint, JointTraining, draw, fit_joint
from minima_core.types import IGNORE, RGB

XFEAT = {"extractor": "xfeat", "long_side": 256, "max_keypoints": 64, "filter_threshold": 0.1}


@pytest.fixture(scope="module")
def album():
    pictures = [cv2.resize(p, (320, 256), interpolation=cv2.INTER_AREA) for p in (data.astronaut(), data.chelsea())]
    negatives = [255 - p for p in pictures]
    stacks = {RGB: torch.from_numpy(np.stack(pictures)), "negative": torch.from_numpy(np.stack(negatives))}
    return Album(stacks, {RGB: np.ones(2, bool), "negative": np.array([True, False])})


def test_views_lie_where_the_homography_says(album):
    batch = draw(album, JointTraining(**JOINT), seed=0, step=0)
    for b in range(2):
        first, second = (batch.twins[k].permute(1, 2, 0).numpy() for k in (b, b + 2))
        warped = cv2.warpPerspective(first, batch.H_0to1[b].numpy(), (160, 128))
        shown = cv2.warpPerspective(batch.inside[b, 0].float().numpy(), batch.H_0to1[b].numpy(), (160, 128)) == 1
        both = shown & batch.inside[b + 2, 0].numpy()
        assert both.mean() > 0.1
        assert np.abs(warped - second)[both].mean() < 0.03  # resampled twice, not misplaced


def test_a_step_is_drawn_from_its_seed_and_number(album):
    params = JointTraining(**JOINT)
    one, same, other = (draw(album, params, seed=0, step=k) for k in (3, 3, 4))
    assert torch.equal(one.views, same.views)
    assert not torch.equal(one.H_0to1, other.H_0to1)


def test_batched_labels_are_those_of_each_pair():
    generator = torch.Generator().manual_seed(0)
    kpts0, kpts1 = (torch.rand(2, 200, 2, generator=generator) * 99 for _ in range(2))
    H = torch.tensor([[[1.0, 0.05, 3], [-0.04, 1, 2], [1e-4, 0, 1]], [[0.9, 0, 5], [0, 1.1, -4], [0, 0, 1]]])
    mask0, mask1 = torch.ones(2, 200, dtype=torch.bool), torch.ones(2, 200, dtype=torch.bool)
    mask1[1, 150:] = False
    found0, found1 = matches_from_homographies(kpts0, kpts1, mask0, mask1, H_0to1=H, size=(100, 100))
    for b, count in enumerate((200, 150)):
        one = matches_from_homography(kpts0[b], kpts1[b, :count], H_0to1=H[b], size0=(100, 100), size1=(100, 100))
        assert torch.equal(found0[b], one.matches0)
        assert torch.equal(found1[b, :count], one.matches1)
    assert (found1[1, 150:] == IGNORE).all()


def test_training_moves_the_extractor_too_and_resumes(album, tmp_path):
    torch.manual_seed(0)
    start = create("lightglue", XFEAT, "test").state_dict()

    def trained(scratch, steps):
        matcher = create("lightglue", XFEAT, "test")
        matcher.load_state_dict(start)
        params = JointTraining(**JOINT | {"decay_from": 1.0, "steps": steps})
        fitted = fit_joint(matcher, album, album, params, seed=0, tracker=NullTracker(), scratch=scratch)
        _, last, _ = checkpoint.load(scratch)
        return last, fitted

    whole, fitted = trained(tmp_path / "whole", 6)
    trained(tmp_path / "cut", 3)
    resumed, _ = trained(tmp_path / "cut", 6)
    assert fitted.steps == 6
    assert fitted.skipped == 0
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert any(not torch.equal(whole[name], start[name]) for name in whole if name.startswith("extractor."))


def test_other_extractors_are_refused():
    with pytest.raises(DataError, match="xfeat"):
        Joint(create("lightglue", XFEAT | {"extractor": "disk"}, "test"), JointTraining(**JOINT))
