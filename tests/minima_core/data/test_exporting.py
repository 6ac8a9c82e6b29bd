"""What is exported comes back equal, and upstream's ways of reading it find what they need."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from legacy_forms import write_files, write_loftr
from PIL import Image
from tiny_world import SCENES, World

from minima_core import cli
from minima_core.data.exporters.base import EXPORTERS
from minima_core.data.exporting import export_index, targets
from minima_core.data.importing import build_index, raw_folder
from minima_core.data.index import read_scene, read_scenes, write_scene
from minima_core.data.shards import Shard
from minima_core.errors import ConfigError, DataError
from minima_core.io.images import read_image
from minima_core.manifest import SceneManifest

REAL = Path(__file__).resolve().parents[3].parent / "shared/data/megadepth_1500_index"
PLACE = {"loftr": "index/scene_info", "glue-factory": "scene_info", "roma": "prep_scene_info"}


@pytest.fixture
def index(tmp_path):
    write_files(tmp_path / "data")
    write_loftr(tmp_path / "data/index")
    build_index("loftr", tmp_path / "data/index", tmp_path / "index")
    return tmp_path / "index"


def equal(one: Path, other: Path) -> bool:
    """Say whether two indices hold the same scenes, to the bit."""
    names = [entry.name for entry in SceneManifest.load(one).scenes]
    assert names == [entry.name for entry in SceneManifest.load(other).scenes]
    return all((one / f"{name}.h5").read_bytes() == (other / f"{name}.h5").read_bytes() for name in names)


@pytest.mark.parametrize("form", PLACE)
def test_a_round_trip_ends_with_the_same_index(tmp_path, index, form):
    export_index(form, index, tmp_path / "theirs", workers=2)
    build_index(form, tmp_path / "theirs" / PLACE[form], tmp_path / "again", images=raw_folder(index))
    assert equal(index, tmp_path / "again")


@pytest.mark.parametrize("form", PLACE)
@pytest.mark.parametrize("seed", range(4))
def test_the_splits_come_back_whatever_the_seed(tmp_path, index, form, seed):
    export_index(form, index, tmp_path / "theirs")
    build_index(form, tmp_path / "theirs" / PLACE[form], tmp_path / "again", images=raw_folder(index), seed=seed)
    assert equal(index, tmp_path / "again")
    assert {s.split for s in SceneManifest.load(index).scenes} == {"train", "val", "test"}


def test_of_lists_without_validation_scenes_some_are_drawn(tmp_path, index):
    export_index("glue-factory", index, tmp_path / "theirs")
    lists = tmp_path / "theirs"
    scenes = (lists / "train_scenes.txt").read_text() + (lists / "valid_scenes.txt").read_text()
    (lists / "valid_scenes.txt").unlink()
    (lists / "train_scenes.txt").write_text(scenes)
    build_index("glue-factory", lists / "scene_info", tmp_path / "again", images=raw_folder(index))
    assert sorted(s.split for s in SceneManifest.load(tmp_path / "again").scenes) == ["test", "train", "val"]


def test_published_lists_that_validate_on_a_benchmark_leave_scenes_for_validation(tmp_path, index):
    export_index("loftr", index, tmp_path / "theirs")
    lists = tmp_path / "theirs/index/trainvaltest_list"
    (lists / "train_list.txt").write_text("0001_0.1_0.3\n0002_0.1_0.3\n")
    (lists / "val_list.txt").write_text("0015_0.1_0.3\n")
    build_index("loftr", tmp_path / "theirs/index/scene_info", tmp_path / "again", images=raw_folder(index))
    found = {s.name: s.split for s in SceneManifest.load(tmp_path / "again").scenes}
    assert found["0015"] == "test" and sorted(found.values()) == ["test", "train", "val"]
    (lists / "val_list.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"val_list\.txt is no list of scenes"):
        build_index("loftr", tmp_path / "theirs/index/scene_info", tmp_path / "again", images=raw_folder(index))


@pytest.mark.parametrize("form", PLACE)
def test_megadepth_1500_goes_through_each_form(tmp_path, form):
    if not REAL.is_dir():
        pytest.skip(f"no index files of MegaDepth-1500 at {REAL}")
    build_index("loftr", REAL, tmp_path / "index")
    export_index(form, tmp_path / "index", tmp_path / "theirs")
    report = build_index(form, tmp_path / "theirs" / PLACE[form], tmp_path / "again")
    assert report.pairs == 1500 and equal(tmp_path / "index", tmp_path / "again")
    if form == "loftr":
        files = {path.stem for path in (tmp_path / "theirs").rglob("*.npz")}
        assert files == set((REAL / "megadepth_test_1500.txt").read_text().split())


def load(path: Path):
    """Read a file as upstream does; what it asks numpy for, numpy 2 calls by another name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return np.load(path, allow_pickle=True)


def test_loftrs_loader_finds_what_it_reads(tmp_path, index):
    export_index("loftr", index, tmp_path / "theirs")
    listed = (tmp_path / "theirs/index/trainvaltest_list/test_list.txt").read_text().split()
    assert listed == ["0015_0.1_0.3", "0015_0.3_0.5", "0015_0.5_0.7"]
    info = load(tmp_path / f"theirs/index/scene_info/{listed[1]}.npz")
    pair_infos = info["pair_infos"].copy()  # LoFTR, src/datasets/megadepth.py
    del info["pair_infos"]
    pair_infos = [pair for pair in pair_infos if pair[1] > 0.35]
    (i, j), overlap, _centres = pair_infos[0]
    assert (len(pair_infos), i, j, overlap) == (1, 0, 1, 0.4)
    assert info["image_paths"][i] == "Undistorted_SfM/0015/images/1_o.jpg"
    T_0to1 = np.matmul(info["poses"][j], np.linalg.inv(info["poses"][i]))
    assert T_0to1[0, 3] == pytest.approx(-0.2)
    assert np.array(info["intrinsics"][i], dtype=float).reshape(3, 3)[0, 2] == 24


def test_glue_factorys_loader_finds_what_it_reads(tmp_path, index):
    export_index("glue-factory", index, tmp_path / "theirs")
    assert (tmp_path / "theirs/test_scenes.txt").read_text() == "0015\n"
    with load(tmp_path / "theirs/scene_info/0015.npz") as info:
        valid = np.array([p is not None for p in info["image_paths"]]) & np.array(
            [p is not None for p in info["depth_paths"]]
        )
        mat = info["overlap_matrix"][valid][:, valid]
        pairs = np.stack(np.where((mat > 0.3) & (mat <= 0.7)), -1)
        assert pairs.tolist() == [[0, 1], [0, 2]]
        assert info["poses"][1].shape == (4, 4) and info["intrinsics"][1].dtype == np.float64


def test_romas_loader_finds_what_it_reads(tmp_path, index):
    export_index("roma", index, tmp_path / "theirs")
    info = load(tmp_path / "theirs/prep_scene_info/0015.npy").item()
    threshold = info["overlaps"] > 0.35
    assert info["pairs"][threshold].tolist() == [[0, 1], [0, 2]]
    assert info["depth_paths"][0].endswith("0015/dense0/depths/1_o.h5")


def test_every_form_can_be_named_and_read_again():
    assert targets() == sorted(PLACE)
    assert EXPORTERS.names() == [name.replace("-", "_") for name in targets()]


def test_synthesised_images_lie_where_the_loaders_of_minima_look(tmp_path):
    world = World(tmp_path).make()
    names = export_index("roma", world.index, tmp_path / "theirs", modalities=world.modalities)
    assert names == ["depth", "event", "infrared"]
    scene = read_scene(world.index, next(iter(SCENES)))
    written = tmp_path / "theirs/event" / Path(scene.image[2]).with_suffix(".png")
    with Shard(world.modalities / "event" / f"{scene.name}.h5") as shard:
        assert (read_image(written) == shard.image(scene.image_id(2))).all()
    with Image.open(written) as picture:
        assert picture.mode == "RGB"  # RoMa's loader converts nothing
    assert read_image(tmp_path / "theirs/infrared" / Path(scene.image[2]).with_suffix(".jpg")).shape == (144, 192, 3)


def test_homographies_have_no_place_in_these_forms(tmp_path, index):
    manifest = SceneManifest.load(index)
    manifest.model_copy(update={"relation": "homography"}).save(index)
    with pytest.raises(DataError, match="related by homographies"):
        export_index("roma", index, tmp_path / "theirs")


def test_a_form_that_is_none_and_a_folder_that_is_full_are_refused(tmp_path, index):
    with pytest.raises(ConfigError, match="did you mean 'roma'"):
        export_index("romas", index, tmp_path / "theirs")
    with pytest.raises(ConfigError, match="exists"):
        export_index("roma", index, index)
    with pytest.raises(DataError, match=r"no .*index\.json"):
        export_index("roma", tmp_path, tmp_path / "theirs")


def test_nothing_half_is_left_behind(tmp_path, index):
    (index / "0015.h5").unlink()
    with pytest.raises(DataError, match=r"0015\.h5"):
        export_index("roma", index, tmp_path / "theirs")
    assert not list(tmp_path.glob("*theirs*"))


def test_the_command_says_where_the_paths_start(tmp_path, index, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(["index", "export", str(index), "--to", "roma", "--out", str(tmp_path / "theirs")])
    assert not ended.value.code
    assert f"image paths start from {tmp_path / 'data'}" in capsys.readouterr().out


def test_depth_that_a_scene_lacks_is_none_there(tmp_path, index):
    scene = next(read_scenes(index))
    write_scene(index, type(scene)(**{**scene.__dict__, "depth": [""] * 3}))
    export_index("roma", index, tmp_path / "theirs")
    info = load(tmp_path / f"theirs/prep_scene_info/{scene.name}.npy").item()
    assert info["depth_paths"].tolist() == [None] * 3
