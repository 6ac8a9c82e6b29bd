from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch

from minima_core.errors import DataError
from minima_core.evaluation.benchmarks.base import PairList, Prepared, create_benchmark
from minima_core.evaluation.benchmarks.mmim import GROUPS, INNER, from_matlab, read_mat
from minima_core.geometry.homography import warp_homography
from minima_core.io.images import write_image

REAL = Path(__file__).resolve().parents[5] / "shared/data/mmim"


@pytest.fixture(scope="module")
def real() -> Path:
    if not (REAL / INNER).is_dir():
        pytest.skip(f"no real multi-modal pairs at {REAL / INNER}")
    return REAL


def prepare(root: Path, folder: Path, subset: str = "full"):
    return create_benchmark("mmim", {"root": str(root), "subset": subset}, "minima-v1").prepare(
        folder, scratch=folder / "scratch"
    )


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """One category with one pair: T shifts by (3, 5) in MATLAB's form."""
    folder = tmp_path / "root" / "RemoteSensing" / "SAR_Optical"
    folder.mkdir(parents=True)
    images = {"I_fix": np.full((20, 30, 3), 10, np.uint8), "I_move": np.full((24, 32, 3), 20, np.uint8)}
    T = np.array([[1.0, 0, 0], [0, 1, 0], [3, 5, 1]])
    scipy.io.savemat(folder / "SO1.mat", {**images, "T": T})
    write_image(folder / "SO1a.png", images["I_fix"])
    write_image(folder / "SO1b.png", images["I_move"])
    (folder / "list.json").write_text(json.dumps({"group1": ["SO1.mat", "SO1a.png", "SO1b.png"]}))
    return tmp_path / "root"


def test_image_0_is_the_moving_one_and_H_maps_it_to_the_fixed_one(toy, tmp_path):
    manifest = prepare(toy, tmp_path / "out")
    pair = PairList.load(tmp_path / "out").pairs[0]
    assert (pair.image0, pair.image1) == ("RemoteSensing/SAR_Optical/SO1b.png", "RemoteSensing/SAR_Optical/SO1a.png")
    assert (pair.size0, pair.size1) == ((32, 24), (30, 20))
    assert pair.H_0to1 == [[1, 0, 3], [0, 1, 5], [0, 0, 1]]
    assert manifest.categories == {"RemoteSensing/SAR_Optical": 1}


def test_a_scaling_in_matlab_pixels_keeps_their_first_pixel_in_place():
    # doubling 1-based pixels sends pixel 1 to 2, that is 0 to 1 in ours
    H = from_matlab(np.diag([2.0, 2.0, 1.0]))
    assert warp_homography(torch.from_numpy(H), torch.tensor([[0.0, 0], [1, 4]]).double()).tolist() == [[1, 1], [3, 9]]


def test_the_inner_folder_may_be_left_out(toy, tmp_path):
    toy.rename(tmp_path / INNER)
    assert prepare(tmp_path, tmp_path / "a").data_digest == prepare(tmp_path / INNER, tmp_path / "b").data_digest


def test_absent_data_are_skipped_with_the_remedy(tmp_path):
    manifest = prepare(tmp_path / "nowhere", tmp_path / "out")
    assert manifest.pairs == 0
    assert "dvc repro -f -s fetch_benchmark@mmim" in manifest.skipped
    assert PairList.load(tmp_path / "out").pairs == []


def test_a_damaged_mat_is_named_in_one_line(toy, tmp_path):
    path = toy / "RemoteSensing/SAR_Optical/SO1.mat"
    whole = path.read_bytes()
    for damaged in (whole[:1000], whole[:60], b"", b"MATLAB" + bytes(4000)):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"SO1\.mat") as error:
            prepare(toy, tmp_path / "out")
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["SO1.mat", "SO1a.png", "SO1b.png"])
def test_a_missing_file_is_named(toy, tmp_path, name):
    (toy / "RemoteSensing/SAR_Optical" / name).unlink()
    with pytest.raises(DataError, match=name):
        prepare(toy, tmp_path / "out")


def test_a_truncated_image_is_named(toy, tmp_path):
    path = toy / "RemoteSensing/SAR_Optical/SO1a.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(DataError, match=r"SO1a\.png"):
        prepare(toy, tmp_path / "out")


def test_images_of_another_size_than_the_mat_says_are_refused(toy, tmp_path):
    write_image(toy / "RemoteSensing/SAR_Optical/SO1a.png", np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(DataError, match=r"SO1a\.png has 9 x 9 pixels"):
        prepare(toy, tmp_path / "out")


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "[]", "{}", '{"group1": ["SO1.mat"]}', '{"group1": 3}'])
def test_a_list_that_is_none_is_named(toy, tmp_path, text):
    path = toy / "RemoteSensing/SAR_Optical/list.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"list\.json is not a list of pairs"):
        prepare(toy, tmp_path / "out")


@pytest.mark.parametrize("reference", ["../../../outside.png", "/outside.png"])
def test_a_list_that_leads_out_of_its_folder_is_refused(toy, tmp_path, reference):
    write_image(tmp_path / "outside.png", np.zeros((9, 9, 3), np.uint8))
    path = toy / "RemoteSensing/SAR_Optical/list.json"
    for place in range(3):
        files = ["SO1.mat", "SO1a.png", "SO1b.png"]
        files[place] = reference
        path.write_text(json.dumps({"group1": files}))
        with pytest.raises(DataError, match=r"list\.json names .*outside\.png"):
            prepare(toy, tmp_path / "out")


def test_a_pair_that_is_there_twice_is_refused(toy, tmp_path):
    files = ["SO1.mat", "SO1a.png", "SO1b.png"]
    (toy / "RemoteSensing/SAR_Optical/list.json").write_text(json.dumps({"group1": files, "group2": files}))
    with pytest.raises(DataError, match="SAR_Optical/SO1 twice"):
        prepare(toy, tmp_path / "out")


def test_a_T_of_another_shape_is_refused_before_it_is_read(toy, tmp_path, monkeypatch):
    path = toy / "RemoteSensing/SAR_Optical/SO1.mat"
    held = scipy.io.loadmat(path)
    scipy.io.savemat(path, {"I_fix": held["I_fix"], "I_move": held["I_move"], "T": np.zeros((300, 300))})
    monkeypatch.setattr("scipy.io.loadmat", lambda *_, **__: pytest.fail("read"))
    with pytest.raises(DataError, match=r"SO1\.mat .*T is \(300, 300\), not 3 x 3"):
        prepare(toy, tmp_path / "out")


def test_a_singular_T_is_refused(toy, tmp_path):
    path = toy / "RemoteSensing/SAR_Optical/SO1.mat"
    scipy.io.savemat(path, {**{k: v for k, v in scipy.io.loadmat(path).items() if k[0] == "I"}, "T": np.zeros((3, 3))})
    with pytest.raises(DataError, match=r"T in .*SO1\.mat is no homography"):
        prepare(toy, tmp_path / "out")


def test_real_pairs_are_complete_and_read(real, tmp_path):
    manifest = prepare(real, tmp_path)
    listed = PairList.load(tmp_path)
    assert manifest.pairs == len(listed.pairs) >= 50
    assert len(listed.headline) == len(GROUPS["Medical"]) + len(GROUPS["RemoteSensing"])
    assert listed.groups["ComputerVision"] == ["ComputerVision/VIS_IR"]
    pair = Prepared(tmp_path).load(listed.pairs[0])
    assert pair.image0.shape[1:] == listed.pairs[0].size0[::-1]
    assert not (tmp_path / "Medical").exists()  # nothing was copied


def test_hand_made_landmarks_confirm_every_real_homography(real, tmp_path):
    """H(moving) must fall on fixed within what a hand can place; its inverse must not."""
    prepare(real, tmp_path)
    for pair in PairList.load(tmp_path).pairs:
        folder = real / INNER / pair.category
        mat = scipy.io.loadmat(folder / f"{pair.name.rpartition('/')[2]}.mat")
        marks = mat["Landmarks"][0, 0]
        moving, fixed = (torch.from_numpy(marks[k].astype(np.float64)) - 1 for k in ("LMmov", "LMfix"))
        H = pair.tensor("H_0to1")
        residual = (warp_homography(H, moving) - fixed).norm(dim=-1).median()
        inverse = (warp_homography(torch.linalg.inv(H), moving) - fixed).norm(dim=-1).nanmedian()
        assert residual < 9, pair.name
        assert residual < inverse, pair.name


def test_the_floor_is_how_far_landmarks_are_from_the_homography(toy, tmp_path):
    prepare(toy, tmp_path / "without")
    assert PairList.load(tmp_path / "without").floor == {}
    path = toy / "RemoteSensing/SAR_Optical/SO1.mat"
    arrays = {key: value for key, value in scipy.io.loadmat(path).items() if key[0] != "_"}
    moving = np.array([[3.0, 4], [9, 2], [7, 8]])
    marks = {"LMmov": moving, "LMfix": moving + np.array([[3, 5], [5, 5], [3, 9]])}  # T shifts by (3, 5)
    scipy.io.savemat(path, arrays | {"Landmarks": marks})
    digests = {prepare(toy, tmp_path / name).data_digest for name in ("without", "with")}
    assert PairList.load(tmp_path / "with").floor == {"RemoteSensing/SAR_Optical/SO1": 2}
    assert len(digests) == 1


def test_pictures_in_the_mat_are_the_files(real):
    folder = real / INNER / "RemoteSensing/SAR_Optical"
    H, sizes = read_mat(folder / "SO5.mat")
    assert sizes == {"I_fix": (500, 492), "I_move": (500, 492)}
    assert H[2, 2] == 1


def test_a_partly_copied_root_uses_what_is_there(real, tmp_path, caplog):
    shutil.copytree(real / INNER / "RemoteSensing/Infrared_Optical", tmp_path / "r/RemoteSensing/Infrared_Optical")
    manifest = prepare(tmp_path / "r", tmp_path / "out")
    assert manifest.categories == {"RemoteSensing/Infrared_Optical": 2}
    assert "lacks" in caplog.text
    assert "Medical/Retina" in caplog.text


def test_a_part_is_spread_over_each_category_and_reads_no_other_pair(toy, tmp_path):
    folder = toy / "RemoteSensing/SAR_Optical"
    files = {"group1": ["SO1.mat", "SO1a.png", "SO1b.png"]}
    for k in (2, 3):
        files[f"group{k}"] = [name.replace("1", str(k)) for name in files["group1"]]
        for name in files["group1"]:
            shutil.copy(folder / name, folder / name.replace("1", str(k)))
    (folder / "list.json").write_text(json.dumps(files))
    whole = prepare(toy, tmp_path / "whole")
    (folder / "SO2.mat").write_bytes(b"damaged")
    part = prepare(toy, tmp_path / "part", "smoke")
    names = [[pair.name[-3:] for pair in PairList.load(tmp_path / name).pairs] for name in ("whole", "part")]
    assert names == [["SO1", "SO2", "SO3"], ["SO1", "SO3"]]
    assert (whole.subset, part.subset) == ("", "smoke") and whole.data_digest != part.data_digest
