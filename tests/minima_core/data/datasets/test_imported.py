"""An imported index becomes raw scenes and an index of the graph: the same geometry, copies of the pictures."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from legacy_forms import OVERLAP, PAIRS, SCENES, H, W, records, write_files, write_loftr, write_roma
from test_rgbd import make

from minima_core.data.datasets.imported import Imported
from minima_core.data.importing import build_index
from minima_core.data.index import read_scene
from minima_core.errors import DataError
from minima_core.io.depth import read_depth, write_depth
from minima_core.io.images import read_image, write_image
from minima_core.manifest import SceneManifest, folder_digest


@pytest.fixture
def index(tmp_path):
    write_files(tmp_path / "data", undistorted=False)
    write_loftr(tmp_path / "data/index")
    build_index("loftr", tmp_path / "data/index", tmp_path / "index", settings={"licence": "CC0-1.0"})
    return tmp_path / "index"


def dataset(index: Path, raw: str = "") -> Imported:
    return Imported(Imported.Params(index=str(index), raw=raw), seed=0)


def test_scenes_for_training_are_copied_and_stay_the_same(tmp_path, index):
    data = dataset(index)
    assert (data.licence, data.relation) == ("CC0-1.0", "depth")
    data.prepare(tmp_path / "raw", workers=2)
    shutil.rmtree(tmp_path / "data")
    scenes = list(data.scenes(tmp_path / "raw"))
    assert [scene.name for scene in scenes] == ["0001", "0002"]  # 0015 is of a benchmark
    before = read_scene(index, "0001")
    assert scenes[0].image[0] == "0001/dense0/imgs/1_o.jpg" and scenes[0].depth[0] == "0001/dense0/depths/1_o.h5"
    assert scenes[0].image_id(0) == before.image_id(0)
    assert (scenes[0].pairs == before.pairs).all() and (scenes[0].T_w2c == before.T_w2c).all()
    assert read_image(tmp_path / "raw" / scenes[0].image[0]).shape == (32, 48, 3)


def test_depth_maps_of_one_name_stay_apart(tmp_path):
    for scene in ("0001", "0002"):
        found = {key: values[[1, 3]] for key, values in records(scene).items()}
        found["image_paths"][:] = [f"{scene}/{side}_7.jpg" for side in ("left", "right")]
        found["depth_paths"][:] = [f"{scene}/{side}/7.h5" for side in ("left", "right")]
        for k in range(2):
            write_image(tmp_path / "data" / found["image_paths"][k], np.zeros((H, W, 3), np.uint8))
            write_depth(tmp_path / "data" / found["depth_paths"][k], np.full((H, W), 3 + k, np.float32))
        (tmp_path / "data/index").mkdir(exist_ok=True)
        np.save(tmp_path / f"data/index/{scene}.npy", {**found, "pairs": [[0, 1]], "overlaps": [0.5]})
    build_index("roma", tmp_path / "data/index", tmp_path / "index")
    data = dataset(tmp_path / "index")
    data.prepare(tmp_path / "raw")
    for moved in data.scenes(tmp_path / "raw"):
        assert [read_depth(tmp_path / "raw" / path)[0, 0] for path in moved.depth] == [3, 4]


def test_a_camera_that_changed_changes_the_raw_folder_which_the_scenes_come_from(tmp_path):
    write_files(tmp_path / "data")
    write_roma(tmp_path / "data/index")
    for name, focal in (("before", 60.0), ("after", 90.0)):
        for scene in SCENES:
            found = records(scene)
            found["intrinsics"][1][0, 0] = focal
            np.save(tmp_path / f"data/index/{scene}.npy", {**found, "pairs": PAIRS, "overlaps": OVERLAP})
        build_index("roma", tmp_path / "data/index", tmp_path / "index")
        dataset(tmp_path / "index").prepare(tmp_path / name)
    assert folder_digest(tmp_path / "before") != folder_digest(tmp_path / "after")  # or DVC makes no other index
    for name, focal in (("before", 60.0), ("after", 90.0)):
        assert [scene.K[0, 0, 0] for scene in dataset(tmp_path / "index").scenes(tmp_path / name)] == [focal] * 2


def test_the_raw_folder_says_what_form_the_index_was_made_from(tmp_path, index):
    dataset(index).prepare(tmp_path / "raw")
    kept = SceneManifest.load(tmp_path / "raw")
    assert (kept.dataset, kept.raw) == ("loftr", "")  # nothing of where the images lay


def test_it_continues_and_names_what_is_missing(tmp_path, index):
    data = dataset(index)
    data.prepare(tmp_path / "raw")
    one = tmp_path / "raw/0002/dense0/imgs/3_o.jpg"
    one.unlink()
    with pytest.raises(DataError, match=r"no .*3_o\.jpg; run"):
        list(data.scenes(tmp_path / "raw"))
    data.prepare(tmp_path / "raw")
    assert one.is_file()
    one.unlink()
    (tmp_path / "data" / read_scene(index, "0002").image[1]).unlink()
    with pytest.raises(DataError, match=r"no .*3_o\.jpg, which the index names"):
        data.prepare(tmp_path / "raw")


def test_an_index_of_scenes_for_test_alone_is_refused(tmp_path, index):
    manifest = SceneManifest.load(index)
    held_out = [scene.model_copy(update={"split": "test"}) for scene in manifest.scenes]
    manifest.model_copy(update={"scenes": held_out}).save(index)
    with pytest.raises(DataError, match="no scene for training or validation"):
        dataset(index).prepare(tmp_path / "raw")


def test_images_that_moved_are_found_where_the_settings_say(tmp_path, index):
    (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(DataError, match=r"dataset\.imported\.raw"):
        dataset(index).prepare(tmp_path / "raw")
    dataset(index, raw=str(tmp_path / "moved")).prepare(tmp_path / "raw")
    assert len(list((tmp_path / "raw").rglob("*.jpg"))) == 6


def test_an_index_of_its_own_copies_may_be_moved(tmp_path):
    make(tmp_path / "frames")
    build_index("rgbd", tmp_path / "frames", tmp_path / "built", settings={"gap": 2, "overlap": [0.1, 1]})
    (tmp_path / "built").rename(tmp_path / "elsewhere")
    dataset(tmp_path / "elsewhere").prepare(tmp_path / "raw")
    assert len(list(dataset(tmp_path / "elsewhere").scenes(tmp_path / "raw"))) == 2


def test_a_folder_without_an_index_and_an_index_without_images_say_what_to_do(tmp_path, index):
    with pytest.raises(DataError, match="minima index build"):
        dataset(tmp_path / "nowhere")
    shutil.rmtree(index)
    shutil.rmtree(tmp_path / "data/phoenix")
    build_index("loftr", tmp_path / "data/index", index)
    with pytest.raises(DataError, match="any place that it knows"):
        dataset(index).prepare(tmp_path / "raw")
