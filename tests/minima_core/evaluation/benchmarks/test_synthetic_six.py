from __future__ import annotations

from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from minima_core.errors import ConfigError, DataError
from minima_core.evaluation.benchmarks.base import PairList, Prepared, create_benchmark
from minima_core.evaluation.benchmarks.synthetic_six import SyntheticSix
from minima_core.evaluation.metrics import epipolar_errors
from minima_core.synthesis.base import MODALITIES

SETTINGS = {
    "subset": "full",
    "seed": 3,
    "scenes": 1,
    "views": 4,
    "size": [256, 192],
    "overlap": [0.1, 1.0],
    "pairs": 3,
    "engines": {
        "depth": {"engine": "dataset"},
        "event": {"engine": "closed_form", "contrast": [0.05, 0.5], "shift": [1, 3]},
    },
}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("six")
    create_benchmark("synthetic_six", SETTINGS, "strict-v1").prepare(root / "a", scratch=root / "scratch")
    return root / "a"


def test_every_category_has_the_same_views_in_alternating_direction(prepared):
    listed = PairList.load(prepared)
    counts = Counter(pair.category for pair in listed.pairs)
    assert set(counts) == {"rgb", "depth", "event"}
    assert len(set(counts.values())) == 1
    assert listed.headline == ["depth", "event"]
    events = [pair for pair in listed.pairs if pair.category == "event"]
    sides = [(pair.image0.split("/")[1], pair.image1.split("/")[1]) for pair in events]
    assert sides[:2] == [("rgb", "event"), ("event", "rgb")]
    poses = {c: [pair.T_0to1 for pair in listed.pairs if pair.category == c] for c in counts}
    assert poses["rgb"] == poses["event"] == poses["depth"]


def test_it_says_which_town_a_pair_shows_and_what_made_an_image(prepared):
    for pair in PairList.load(prepared).pairs:
        assert SyntheticSix.place(pair) in pair.image0 and SyntheticSix.place(pair) in pair.image1
        assert {SyntheticSix.sensor(image) for image in (pair.image0, pair.image1)} == {"rgb", pair.category}


def test_the_true_pose_fits_what_can_be_seen(prepared):
    """SIFT on an RGB pair must lie on the epipolar lines of the ground truth."""
    truth = max((p for p in PairList.load(prepared).pairs if p.category == "rgb"), key=lambda p: overlap(prepared, p))
    errors = sift_errors(prepared, truth)
    assert len(errors) > 15
    assert float(errors.median()) < 1.5


def overlap(folder: Path, truth) -> int:
    return len(sift_errors(folder, truth))


def sift_errors(folder: Path, truth) -> torch.Tensor:
    pair = Prepared(folder).load(truth)
    sift = cv2.SIFT_create(contrastThreshold=0.02)
    images = [(image * 255).round().byte().permute(1, 2, 0).numpy() for image in (pair.image0, pair.image1)]
    grays = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) for image in images]
    (kpts0, desc0), (kpts1, desc1) = (sift.detectAndCompute(gray, None) for gray in grays)
    found = [m for m, n in cv2.BFMatcher().knnMatch(desc0, desc1, k=2) if m.distance < 0.75 * n.distance]
    points0 = torch.tensor(np.array([kpts0[m.queryIdx].pt for m in found]).reshape(-1, 2))
    points1 = torch.tensor(np.array([kpts1[m.trainIdx].pt for m in found]).reshape(-1, 2))
    return epipolar_errors(points0, points1, pair.T_0to1, pair.K0, pair.K1)


def test_images_have_the_encoding_of_their_engine_and_travel_with_attribution(prepared):
    suffixes = {path.parent.parent.name: path.suffix for path in prepared.glob("images/*/*/*")}
    assert suffixes["rgb"] == ".jpg"
    for modality, settings in SETTINGS["engines"].items():
        lossless = MODALITIES.create(modality, settings).encoding == "png"
        assert suffixes[modality] == (".png" if lossless else ".jpg")
    assert (prepared / "ATTRIBUTION.txt").read_text().strip()


def test_it_comes_out_the_same_after_a_kill_and_with_more_workers(prepared, tmp_path):
    again = tmp_path / "b"
    benchmark = create_benchmark("synthetic_six", SETTINGS, "strict-v1")
    benchmark.prepare(again, scratch=tmp_path / "scratch")
    for path in list(again.glob("images/event/*/*")):  # as if it had been killed before the events
        path.unlink()
    (again / PairList.FILE).unlink()
    benchmark.prepare(again, scratch=tmp_path / "scratch", workers=2)
    files = sorted(path.relative_to(prepared) for path in prepared.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(again) for path in again.rglob("*") if path.is_file())
    assert all((prepared / name).read_bytes() == (again / name).read_bytes() for name in files)


def test_it_must_have_modalities():
    for engines in ({}, {"rgb": {"engine": "x"}}):
        with pytest.raises(ConfigError, match="engines must name modalities"):
            create_benchmark("synthetic_six", {**SETTINGS, "engines": engines}, "strict-v1")._prepare(Path(), Path(), 1)


def test_an_unknown_setting_is_named():
    with pytest.raises(ConfigError, match=r"benchmark\.synthetic_six"):
        create_benchmark("synthetic_six", {**SETTINGS, "veiws": 3}, "strict-v1")


def test_views_without_the_overlap_asked_for_are_an_error(tmp_path):
    impossible = {**SETTINGS, "overlap": [0.9999, 1.0], "views": 2, "size": [64, 48]}
    with pytest.raises(DataError, match="no pair of views"):
        create_benchmark("synthetic_six", impossible, "strict-v1").prepare(tmp_path / "b", scratch=tmp_path / "scratch")


def test_a_part_has_both_directions_and_makes_no_image_of_what_it_leaves_out(prepared, tmp_path):
    part = create_benchmark("synthetic_six", {**SETTINGS, "subset": "smoke"}, "strict-v1")
    manifest = part.prepare(tmp_path / "b", scratch=tmp_path / "scratch")
    pairs = PairList.load(tmp_path / "b").pairs
    assert manifest.subset == "smoke" and set(manifest.categories.values()) == {2}
    assert [pair for pair in PairList.load(prepared).pairs if pair in pairs] == pairs
    assert {pair.image0.split("/")[1] for pair in pairs if pair.category == "event"} == {"rgb", "event"}
    there = {str(path.relative_to(tmp_path / "b")) for path in (tmp_path / "b").glob("images/*/*/*")}
    assert there == {image for pair in pairs for image in (pair.image0, pair.image1)}
