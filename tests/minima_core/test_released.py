"""The model that the package ships."""

import cv2
import numpy as np
import pytest
import torch
from skimage import data

from minima_core import load_matcher, match
from minima_core.geometry.homography import warp_homography
from minima_core.licences import allows_commercial_use
from minima_core.models import RELEASED, WEIGHTS
from minima_core.synthesis.base import MODALITIES, Source


@pytest.fixture(scope="module")
def released():
    return load_matcher("minima-lightglue")


def test_everybody_may_use_it_and_sees_whose_pictures_it_learned_from(released):
    assert released.card.commercial
    assert allows_commercial_use(released.card.licence)
    assert {"commons", "synthetic"} == set(released.card.training["data_sets"])
    assert any("CC-BY-SA" in line for line in released.card.attribution)
    assert all(line.strip() for line in released.card.attribution)


def test_it_travels_with_the_package():
    assert (RELEASED["minima-lightglue"] / WEIGHTS).stat().st_size < 20e6


def test_it_is_what_two_pictures_are_matched_by_unless_another_is_named(released):
    photograph = data.chelsea()[:, :400]
    found, own = match(photograph[8:], photograph[:-8]), released.match(photograph[8:], photograph[:-8])
    assert len(own) > 0 and torch.equal(found.mkpts0, own.mkpts0) and torch.equal(found.scores, own.scores)


def test_its_extractor_matches_cells_too(released):
    found = load_matcher("minima-xfeat-star")
    assert found.card.commercial and found.card.matcher == "xfeat_star"
    trained = released.matcher.extractor.net.net.state_dict()
    state = found.matcher.network.state_dict()
    assert state.keys() == trained.keys() and all(torch.equal(state[name], trained[name]) for name in state)
    photograph = data.chelsea()[:, :400]
    matches = found.match(photograph[8:], photograph[:-8])
    error = (matches.mkpts0 + torch.tensor([0, 8]) - matches.mkpts1).norm(dim=-1)
    assert len(matches) > 500
    assert float(error.median()) < 1


@pytest.mark.parametrize("modality", ["infrared", "sketch"])
def test_it_finds_a_photograph_again_in_another_modality(released, modality):
    photograph = data.chelsea()[:, :400]
    engine = MODALITIES.create(modality, MODALITIES.settings(modality))
    other = engine.synthesise(Source("chelsea", photograph), seed=0, modality=modality).image
    shift = np.array([24, 16])
    matches = released.match(photograph[: -shift[1], : -shift[0]], other[shift[1] :, shift[0] :])
    error = (matches.mkpts0 - torch.from_numpy(shift) - matches.mkpts1).norm(dim=-1)
    assert len(matches) > 100
    assert float((error < 5).float().mean()) > 0.8


def test_it_moves_its_matches_nearer_to_the_truth(released):
    """Between a photograph and its turned negative; as keypoints were found they lie on whole pixels of either."""
    photograph = data.chelsea()[:, :448]
    turn = np.vstack([cv2.getRotationMatrix2D((224, 150), 7, 1.08), [0, 0, 1]])
    turned = cv2.warpPerspective(255 - photograph, turn, (448, 300), borderMode=cv2.BORDER_REFLECT)
    found = load_matcher("minima-lightglue")
    found.matcher.refiner = None
    medians = []
    for model in (found, released):
        matches = model.match(photograph, turned, long_side=448)
        off = warp_homography(torch.from_numpy(turn), matches.mkpts0.double()) - matches.mkpts1
        medians.append(float(off.norm(dim=1).median()))
    assert medians[1] < 0.7 * medians[0]
