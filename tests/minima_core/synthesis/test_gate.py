"""What the gate lets through, what it refuses, and that refused images are drawn anew and then listed."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from skimage import data

from benchmarks.gate import paired
from minima_core.config import PARAMS, checked, read_value
from minima_core.io.images import read_image
from minima_core.synthesis.base import MODALITIES, Source
from minima_core.synthesis.gate import Gate, Params, judge, matcher_error, shipped
from minima_core.synthesis.sources import Item

SIX = ["infrared", "event", "paint", "sketch", "sar", "medical"]  # those that need no depth
PLANTED: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str]] = {
    "shifted": (lambda image: np.roll(image, 24, 1), "shifted by|another structure"),
    "mirrored": (lambda image: image[:, ::-1], "another structure|shifted|mirrored"),
    "upside down": (lambda image: image[::-1], "another structure|shifted|upside down"),
    "blank": (lambda image: np.full_like(image, 200), "blank"),
}


@pytest.fixture(scope="module")
def params(request) -> Params:
    return checked(read_value("gate", request.config.rootpath / PARAMS), Params, "gate")


def test_the_shipped_settings_are_those_of_the_checkout(params):
    assert shipped() == params


@pytest.fixture(scope="module")
def sources(shared_photos) -> list[Source]:
    """Every eighth of the real photographs, 640 pixels wide."""

    def small(path):
        image = read_image(path)
        scale = 640 / max(image.shape[:2])
        return cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)

    return [Source(path.stem, small(path)) for path in shared_photos[::8]]


@pytest.mark.parametrize("modality", SIX)
def test_good_renditions_of_real_photographs_pass_and_planted_failures_do_not(modality, sources, params):
    engine = MODALITIES.create(modality, MODALITIES.settings(modality))
    sources = sources[::2] if modality == "paint" else sources  # the slowest by far
    made = [engine.synthesise(source, seed=0, modality=modality).image for source in sources]
    gates = [Gate(params, source) for source in sources]
    assert [gate.judge(image).reason for gate, image in zip(gates, made, strict=True)] == [""] * len(made)
    for gate, image in zip(gates, made, strict=True):
        for spoil, reason in PLANTED.values():
            found = gate.judge(np.ascontiguousarray(spoil(image))).reason
            assert any(part in found for part in reason.split("|")), (gate.source.name, spoil, found)
    for k, gate in enumerate(gates):
        other = cv2.resize(made[(k + 3) % len(made)], made[k].shape[1::-1])
        assert gate.judge(other).reason


def test_a_symmetric_picture_that_was_mirrored_is_found_out(params):
    """Its mirror image agrees well enough by itself; that the original agrees better gives it away."""
    half = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (480, 320, 3), dtype=np.uint8), (0, 0), 6)
    half = cv2.normalize(half, None, 0, 255, cv2.NORM_MINMAX)
    own = half.copy()
    own[200:300, 100:200] = half[::-1][200:300, 100:200]  # one side differs
    picture = np.concatenate([half, own[:, ::-1]], 1)
    gate = Gate(params.model_copy(update={"sure": 1e9}), Source("a", picture))
    assert gate.judge(picture).reason == ""
    assert gate.judge(np.ascontiguousarray(picture[:, ::-1])).reason == "mirrored"


def test_a_flat_source_is_not_judged(params):
    flat = Source("a", np.full((480, 640, 3), 90, np.uint8))
    assert Gate(params, flat).judge(np.full((480, 640, 3), 7, np.uint8)).reason == ""
    assert Gate(params, flat).judge(np.full((480, 640, 3), 7, np.uint8)).score is None


def test_a_flat_depth_excuses_a_flat_rendition(params, photo):
    """A wall seen head on has texture in the photograph and none in its depth."""
    photo = cv2.resize(photo, (640, 480))
    wall = Source("a", photo, depth=np.full(photo.shape[:2], 3.0, np.float32))
    assert Gate(params, wall).judge(np.zeros_like(photo)).reason == ""
    assert Gate(params, Source("a", photo)).judge(np.zeros_like(photo)).reason


def test_agreement_with_the_photograph_at_its_place_outweighs_a_depth_that_seems_shifted(params, photo):
    """Long parallel edges of a depth map agree with each other at a distance; the photograph says where they are."""
    picture = cv2.resize(photo, (640, 480))
    depth = np.roll(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), 8, 1).astype(np.float32) / 50 + 1
    veiled = cv2.addWeighted(picture, 0.25, cv2.resize(data.coffee(), (640, 480)), 0.75, 0)  # agrees less
    gate = Gate(params.model_copy(update={"sure": 1e9}), Source("a", veiled, depth=depth))
    assert gate.judge(picture).reason == ""
    assert gate.judge(np.roll(picture, 60, 1)).reason


def test_a_small_picture_is_refused_only_where_it_is_blank(params, photo):
    small = photo[:90, :120]
    gate = Gate(params, Source("a", small))
    assert gate.judge(np.ascontiguousarray(small[:, ::-1])).reason == ""
    assert "blank" in gate.judge(np.zeros_like(small)).reason


def orb(image0, image1):
    """A matcher of the simplest kind, which reads photographs and what is painted after them."""
    finder = cv2.ORB_create(1000)
    (kpts0, desc0), (kpts1, desc1) = (finder.detectAndCompute(image, None) for image in (image0, image1))
    if desc0 is None or desc1 is None:
        return np.zeros((0, 2)), np.zeros((0, 2))
    found = cv2.BFMatcher(cv2.NORM_HAMMING, crossCheck=True).match(desc0, desc1)
    points = np.array([[kpts0[m.queryIdx].pt, kpts1[m.trainIdx].pt] for m in found]).reshape(-1, 2, 2)
    return points[:, 0], points[:, 1]


def test_a_matcher_measures_the_known_warp(photo):
    rng = np.random.default_rng(0)
    assert matcher_error(orb, photo, photo, rng) < 2
    assert matcher_error(orb, photo, np.roll(photo, 20, 1), rng) > 10
    assert matcher_error(lambda *_: (np.zeros((0, 2)), np.zeros((0, 2))), photo, photo, rng) == float("inf")


def test_a_matcher_judges_where_correlation_cannot(params, photo):
    """Pictures below 320 pixels hold too little for the correlation."""
    small = cv2.resize(photo, (300, 240), interpolation=cv2.INTER_AREA)
    planted = [np.roll(small, 24, 1), small[:, ::-1].copy(), cv2.resize(data.coffee(), (300, 240))]
    blind, seeing = Gate(params, Source("a", small)), Gate(params, Source("a", small), orb)
    assert [blind.judge(image).reason for image in planted] == [""] * 3
    reasons = [seeing.judge(image).reason for image in planted]
    assert seeing.judge(small).reason == ""
    assert all(reason.startswith("found by the matcher") for reason in reasons)
    assert 18 < float(reasons[0].split()[4]) < 30  # pixels


def test_what_a_matcher_refuses_is_drawn_anew(params, photo):
    asked = []

    def unwilling_once(image0, image1):
        asked.append(1)
        return orb(image0, image1) if len(asked) > 1 else (np.zeros((0, 2)), np.zeros((0, 2)))

    engine = MODALITIES.create("paint", MODALITIES.settings("paint"))
    source = Source("a/0", cv2.resize(photo, (300, 240), interpolation=cv2.INTER_AREA))
    first = engine.synthesise(source, seed=0, modality="paint")
    found = judge(engine, source, first, params, seed=0, modality="paint", match=unwilling_once)
    assert (found.attempt, found.refused) == (1, "") and len(asked) == 2
    assert (found.rendition.image != first.image).any()
    never = judge(engine, source, first, params, seed=0, modality="paint", match=lambda *_: (np.zeros((0, 2)),) * 2)
    assert never.refused == "found by the matcher nowhere in its source; 3 attempts"


@pytest.mark.parametrize("count", [2, 3, 6, 7, 8, 44])
def test_the_benchmark_plants_another_image_however_few_there_are(count, tmp_path):
    items = [Item(f"a/{k}", tmp_path / f"{k}.jpg") for k in range(count)]
    pairs = paired(items)
    assert [item for item, _ in pairs] == items
    assert sorted(other.name for _, other in pairs) == sorted(item.name for item in items)
    assert all(item is not other for item, other in pairs)
