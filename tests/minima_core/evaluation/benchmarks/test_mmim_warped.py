from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from minima_core.errors import DataError
from minima_core.evaluation.benchmarks.base import Benchmark, PairList, Prepared, create_benchmark
from minima_core.evaluation.benchmarks.mmim_warped import warp
from minima_core.geometry.homography import warp_homography
from minima_core.io.images import write_image

CATEGORY = "RemoteSensing/SAR_Optical"
SHIFT = (6, 4)  # from moving to fixed


def disc(x: int, y: int) -> np.ndarray:
    """A white disc of radius 6 on gray, 160 x 120."""
    rows, columns = np.mgrid[:120, :160]
    return np.where(((columns - x) ** 2 + (rows - y) ** 2 <= 36)[..., None], 255, 60).repeat(3, -1).astype(np.uint8)


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """One pair of a disc at (70, 50) in the moving image, whose T shifts it in the fixed one."""
    folder = tmp_path / "root" / CATEGORY
    folder.mkdir(parents=True)
    moving, fixed = disc(70, 50), disc(70 + SHIFT[0], 50 + SHIFT[1])
    T = np.array([[1.0, 0, 0], [0, 1, 0], [*SHIFT, 1]])
    scipy.io.savemat(folder / "SO1.mat", {"I_fix": fixed, "I_move": moving, "T": T})
    write_image(folder / "SO1a.png", fixed)
    write_image(folder / "SO1b.png", moving)
    (folder / "list.json").write_text(json.dumps({"group1": ["SO1.mat", "SO1a.png", "SO1b.png"]}))
    return tmp_path / "root"


def prepare(root: Path, folder: Path, **change: int | str):
    settings = {"root": str(root), "subset": "full", "warps": 5, "seed": 3, **change}
    return create_benchmark("mmim_warped", settings, "strict-v1").prepare(folder, scratch=folder / "scratch")


def test_the_ground_truth_carries_the_disc_of_the_warped_image_to_the_fixed_one(toy, tmp_path):
    manifest = prepare(toy, tmp_path / "out")
    pairs = list(Benchmark.pairs(tmp_path / "out"))
    assert manifest.categories == {CATEGORY: 5} and len({pair.name for pair in pairs}) == 5
    places = []
    for pair in pairs:
        white = (pair.image0.mean(0) > 0.8).nonzero().flip(-1).double().mean(0)
        places.append(white)
        carried = warp_homography(pair.H_0to1, white[None])[0]
        assert torch.allclose(carried, torch.tensor([76.0, 54.0]).double(), atol=0.5), pair.name
    assert torch.stack(places).std(0).min() > 1  # every warp is another


def test_pairs_stay_the_same_wherever_the_data_lie_and_change_with_the_seed(toy, tmp_path):
    first = prepare(toy, tmp_path / "a").data_digest
    toy.rename(tmp_path / "elsewhere")
    assert prepare(tmp_path / "elsewhere", tmp_path / "b").data_digest == first
    assert prepare(tmp_path / "elsewhere", tmp_path / "c", seed=4).data_digest != first
    fewer = prepare(tmp_path / "elsewhere", tmp_path / "d", warps=2)
    assert fewer.pairs == 2
    assert PairList.load(tmp_path / "d").pairs == PairList.load(tmp_path / "a").pairs[:2]
    assert Prepared(tmp_path / "a").list.headline == [CATEGORY]


def test_a_shift_leaves_black_where_nothing_was_seen():
    H = np.array([[1.0, 0, 10], [0, 1, 0], [0, 0, 1]])
    image = disc(70, 50)
    warped = warp(image, H)
    assert not warped[:, :9].any()
    assert np.array_equal(warped[:, 11:], image[:, 1:-10])


def test_absent_data_name_the_setting(tmp_path):
    skipped = prepare(tmp_path / "nowhere", tmp_path / "out").skipped
    assert "change benchmark.mmim_warped in params.yaml" in skipped and "fetch_benchmark@mmim_warped" in skipped


def put(root: Path, category: str, stem: str) -> None:
    """Add a pair to a category."""
    folder = root / category
    folder.mkdir(parents=True, exist_ok=True)
    image = disc(70, 50)
    scipy.io.savemat(folder / f"{stem}.mat", {"I_fix": image, "I_move": image, "T": np.eye(3)})
    for side in "ab":
        write_image(folder / f"{stem}{side}.png", image)
    path = folder / "list.json"
    listed = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**listed, f"group{len(listed) + 1}": [f"{stem}.mat", f"{stem}a.png", f"{stem}b.png"]}))


def test_negatives_of_real_pairs_stay_within_a_category_and_leave_out_what_may_show_one_place(toy, tmp_path):
    put(toy, CATEGORY, "SO2")
    for stem in ("M01", "M02"):
        put(toy, "RemoteSensing/Map_Optical", stem)
        put(toy, "Medical/Retina", stem)
        put(toy, "RemoteSensing/DepthOptical", stem)
    for of, more, copies in (("mmim", {}, 1), ("mmim_warped", {"warps": 3, "seed": 3}, 3)):
        settings = {"subset": "full", "of": of, "settings": {"root": str(toy), **more}, "seed": 0}
        create_benchmark("negatives", settings, "strict-v1").prepare(tmp_path / of, scratch=tmp_path / "scratch")
        listed = PairList.load(tmp_path / of)
        assert (
            {pair.category for pair in listed.pairs} == {CATEGORY, "RemoteSensing/Map_Optical"} == set(listed.headline)
        )
        assert list(listed.groups) == ["RemoteSensing"] and len(listed.pairs) == 2 * 4 * copies
        for pair in listed.pairs:
            stems = [
                next(stem for stem in ("SO1", "SO2", "M01", "M02") if stem in image)
                for image in (pair.image0, pair.image1)
            ]
            assert all(pair.category in image for image in (pair.image0, pair.image1))
            assert (stems[0] == stems[1]) == pair.related
        Prepared(tmp_path / of)  # its list belongs to its manifest


def test_negatives_leave_out_a_category_with_one_place_and_need_one_with_two(toy, tmp_path, caplog):
    settings = {"subset": "full", "of": "mmim_warped", "settings": {"root": str(toy), "warps": 2, "seed": 3}, "seed": 0}
    with pytest.raises(DataError, match="need a second place"):
        create_benchmark("negatives", settings, "strict-v1").prepare(tmp_path / "one", scratch=tmp_path / "scratch")
    for stem in ("M01", "M02"):
        put(toy, "RemoteSensing/Map_Optical", stem)
    create_benchmark("negatives", settings, "strict-v1").prepare(tmp_path / "two", scratch=tmp_path / "scratch")
    listed = PairList.load(tmp_path / "two")
    assert {pair.category for pair in listed.pairs} == {"RemoteSensing/Map_Optical"} == set(listed.headline)
    assert "image 1 of images/RemoteSensing/SAR_Optical" in caplog.text


def test_a_part_is_of_warped_pairs_each_of_another_photograph(toy, tmp_path):
    put(toy, CATEGORY, "SO2")
    put(toy, "RemoteSensing/Map_Optical", "M01")
    prepare(toy, tmp_path / "whole")
    assert prepare(toy, tmp_path / "part", subset="smoke").categories == {
        CATEGORY: 2,
        "RemoteSensing/Map_Optical": 2,
    }
    pairs = PairList.load(tmp_path / "part").pairs
    assert [pair.name.rpartition("/")[2] for pair in pairs] == ["SO1-0", "SO2-4", "M01-0", "M01-4"]
    assert [pair for pair in PairList.load(tmp_path / "whole").pairs if pair in pairs] == pairs
    assert len(list((tmp_path / "part/images").rglob("*-moving.png"))) == 4
