"""The three legacy forms give one index; what cannot be used is counted with its reason, what is hostile is refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from legacy_forms import H, W, records, write_files, write_glue_factory, write_loftr, write_roma

from minima_core import cli
from minima_core.data.importers.loftr import Loftr
from minima_core.data.importing import build_index
from minima_core.data.index import read_scene, read_scenes
from minima_core.data.pairs import PairSource
from minima_core.errors import ConfigError, DataError
from minima_core.io.images import write_image
from minima_core.manifest import SceneManifest

REAL = Path(__file__).resolve().parents[4].parent / "shared/data/megadepth_1500_index"
FORMS = {"loftr": write_loftr, "glue-factory": write_glue_factory, "roma": write_roma}


def reasons(report) -> dict[str, int]:
    return {one.reason: one.count for one in report.skipped}


@pytest.mark.parametrize("form", FORMS)
def test_each_form_gives_the_same_index(tmp_path, form):
    write_files(tmp_path / "data")
    FORMS[form](tmp_path / "data/index")
    report = build_index(form, tmp_path / "data/index", tmp_path / "out")
    assert (report.scenes, report.images, report.pairs) == (3, 9, 12)
    assert reasons(report) == {"record without an image": 9}
    assert Path(report.raw) == tmp_path / "data"
    scene = read_scene(tmp_path / "out", "0001")
    assert scene.image == [f"Undistorted_SfM/0001/images/{i}_o.jpg" for i in (1, 3, 5)]
    assert scene.depth[0] == "phoenix/S6/zl548/MegaDepth_v1/0001/dense0/depths/1_o.h5"
    assert scene.pairs.tolist() == [[0, 1], [0, 2], [1, 2], [2, 1]]
    assert scene.overlap.tolist() == [0.4, 0.65, 0.3, 0.15]
    assert scene.size.tolist() == [[W, H]] * 3
    assert scene.K[0].tolist() == [[60, 0, W / 2 - 0.5], [0, 60, H / 2 - 0.5], [0, 0, 1]]  # ours begin at the centre
    assert scene.T_w2c[2][0, 3] == -0.5


def test_archives_are_read_as_pickles_are(tmp_path):
    write_files(tmp_path)
    write_loftr(tmp_path / "a")
    write_loftr(tmp_path / "b", archive=True)
    digests = {build_index("loftr", tmp_path / name, tmp_path / f"out-{name}").digest for name in "ab"}
    assert len(digests) == 1


def test_scenes_of_benchmarks_are_never_for_training(tmp_path):
    write_files(tmp_path)
    write_loftr(tmp_path / "index")
    build_index("loftr", tmp_path / "index", tmp_path / "out")
    splits = {entry.name: entry.split for entry in SceneManifest.load(tmp_path / "out").scenes}
    assert splits["0015"] == "test"
    assert sorted(splits[name] for name in ("0001", "0002")) == ["train", "val"]


def test_the_rewritten_paths_are_found_where_only_megadepths_own_images_are(tmp_path):
    write_files(tmp_path / "train", undistorted=False)
    write_loftr(tmp_path / "index")
    report = build_index("loftr", tmp_path / "index", tmp_path / "out")
    assert Path(report.raw) == tmp_path / "train"
    assert read_scene(tmp_path / "out", "0001").image[0] == "phoenix/S6/zl548/MegaDepth_v1/0001/dense0/imgs/1_o.jpg"
    source = PairSource(tmp_path / "out", tmp_path / "train", None, split="train", names=[])
    assert source.load(0).view0.depth.shape == (H, W)


def test_an_upper_case_suffix_is_the_same_image(tmp_path):
    write_files(tmp_path)
    write_loftr(tmp_path / "index")
    one = tmp_path / "Undistorted_SfM/0001/images/1_o.jpg"
    one.rename(one.with_suffix(".JPG"))
    build_index("loftr", tmp_path / "index", tmp_path / "out")
    assert read_scene(tmp_path / "out", "0001").image[0].endswith("1_o.JPG")


def test_missing_files_are_counted_and_their_pairs_go(tmp_path):
    write_files(tmp_path)
    write_loftr(tmp_path / "index")
    (tmp_path / "Undistorted_SfM/0002/images/1_o.jpg").unlink()
    (tmp_path / records("0002")["depth_paths"][3]).unlink()
    write_image(tmp_path / "Undistorted_SfM/0001/images/5_o.jpg", np.zeros((4, 4, 3), np.uint8))
    (tmp_path / "Undistorted_SfM/0001/images/5_o.jpg").write_bytes(b"no image")
    report = build_index("loftr", tmp_path / "index", tmp_path / "out")
    found = reasons(report)
    assert found["image that is not there"] == 1
    assert found["image whose depth map is not there, needed for training"] == 1
    assert found["image that cannot be read"] == 1
    assert found["pair with an image that is left out"] == 3 + 4
    assert found["scene without a usable pair"] == 1
    assert (report.scenes, report.pairs) == (2, 1 + 4)


@pytest.mark.parametrize("named", [True, False])
def test_images_of_a_few_scenes_are_found_though_the_first_has_none(tmp_path, named):
    write_files(tmp_path)
    write_roma(tmp_path / "index")
    shutil.rmtree(tmp_path / "Undistorted_SfM/0001")
    report = build_index("roma", tmp_path / "index", tmp_path / "out", images=tmp_path if named else None)
    assert (Path(report.raw), report.scenes) == (tmp_path, 2)
    assert reasons(report)["image that is not there"] == 3


def test_settings_choose_pairs(tmp_path):
    write_files(tmp_path)
    write_roma(tmp_path / "index")
    report = build_index("roma", tmp_path / "index", tmp_path / "out", settings={"overlap": [0.15, 0.4]})
    assert report.pairs == 2 * 3
    report = build_index("roma", tmp_path / "index", tmp_path / "out", settings={"max_pairs": 1})
    assert report.pairs == 3
    assert reasons(report)["pair beyond max_pairs of a scene"] == 9
    with pytest.raises(ConfigError, match=r"'max_pair' is not in --set"):
        build_index("roma", tmp_path / "index", tmp_path / "out", settings={"max_pair": 1})


def test_a_path_that_leads_out_is_refused(tmp_path):
    for given in ("../../etc/passwd.jpg", "/etc/passwd.jpg"):
        found = records("0001")
        found["image_paths"][1] = given
        (tmp_path / "index").mkdir(exist_ok=True)
        np.save(tmp_path / "index/0001.npy", {**found, "pairs": [[1, 3]], "overlaps": [0.5]}, allow_pickle=True)
        with pytest.raises(DataError, match=r"0001\.npy is refused: it names '.*passwd"):
            build_index("roma", tmp_path / "index", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("what", ["image", "folder", "index"])
def test_links_that_lead_out_are_refused(tmp_path, what):
    write_files(tmp_path / "data")
    write_loftr(tmp_path / "data/index")
    victim = {
        "image": "Undistorted_SfM/0001/images/1_o.jpg",
        "folder": "Undistorted_SfM/0001",
        "index": "index/0001_0.1_0.3.npz",
    }[what]
    (tmp_path / "data" / victim).rename(tmp_path / "elsewhere")
    (tmp_path / "data" / victim).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is refused: it leads out of"):
        build_index("loftr", tmp_path / "data/index", tmp_path / "out")
    assert not list(tmp_path.glob("*out*"))


def test_a_hostile_index_is_one_line_on_the_command_line(tmp_path, capsys):
    class Runs:
        def __reduce__(self):
            return exec, ("import os; os.environ['HARM'] = 'done'",)  # not print: ray puts its own in its place

    (tmp_path / "0001_0.1_0.3.npz").write_bytes(pickle.dumps({"image_paths": Runs()}))
    with pytest.raises(SystemExit) as ended:
        cli.main(["index", "build", "--from", "loftr", "--source", str(tmp_path), "--out", str(tmp_path / "out")])
    told = capsys.readouterr()
    assert ended.value.code == 1 and "HARM" not in os.environ
    assert told.err.count("\n") == 1 and "asks for builtins.exec" in told.err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"--from": "lofter"}, "did you mean 'loftr'"),
        ({"--source": "nowhere"}, "no folder nowhere"),
        ({"--images": "nowhere"}, "no folder nowhere"),
        ({"--from": "roma"}, "no SCENE.npy of RoMa"),
        ({"--from": "glue-factory"}, "has no overlap_matrix"),
        ({"--out": "index"}, "exists and is no index"),
        ({"--out": "."}, "exists and is no index"),
        ({"--report": "r.txt"}, "--report must end in .json"),
        ({"--images": "empty"}, "holds none of the images"),
    ],
)
def test_bad_options_are_one_line(tmp_path, monkeypatch, capsys, change, message):
    monkeypatch.chdir(tmp_path)
    write_loftr(tmp_path / "index")
    (tmp_path / "empty").mkdir()
    options = {"--from": "loftr", "--source": "index", "--out": "out", "--report": "r.json", **change}
    with pytest.raises(SystemExit) as ended:
        cli.main(["index", "build", *(part for item in options.items() for part in item)])
    told = capsys.readouterr().err
    assert ended.value.code == 1 and told.count("\n") == 1 and message in told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "index"]


@pytest.mark.parametrize(
    ("form", "folder"),
    [("loftr", "index/scene_info_0.1_0.7"), ("glue-factory", "scene_info"), ("roma", "prep_scene_info")],
)
def test_megadepth_is_imported_with_whichever_index_is_there(tmp_path, form, folder):
    write_files(tmp_path, undistorted=True)
    write_files(tmp_path, undistorted=False)
    FORMS[form](tmp_path / folder)
    report = build_index("megadepth", tmp_path, tmp_path / "index-of-ours")
    assert (report.scenes, report.images, report.pairs) == (3, 9, 12)
    scene = read_scene(tmp_path / "index-of-ours", "0001")
    assert scene.image[0] == "phoenix/S6/zl548/MegaDepth_v1/0001/dense0/imgs/1_o.jpg"


def test_megadepth_without_an_index_says_what_to_bring(tmp_path):
    write_files(tmp_path, undistorted=False)
    with pytest.raises(DataError, match=r"no index in .*megadepth_indices\.tar"):
        build_index("megadepth", tmp_path, tmp_path / "index-of-ours")


@pytest.fixture
def real():
    if not REAL.is_dir():
        pytest.skip(f"no index files of MegaDepth-1500 at {REAL}")
    return REAL


def test_the_five_files_of_megadepth_1500_are_what_the_specification_says(real):
    importer = Loftr(real, Loftr.Params())
    listed = (real / "megadepth_test_1500.txt").read_text().split()
    assert {path.stem for paths in importer.files().values() for path in paths} == set(listed)
    for scene, paths in importer.files().items():
        for path in paths:
            held = importer.read(path)
            there = [
                sum(value is not None for value in column) for column in (held.image, held.depth, held.K, held.T_w2c)
            ]
            assert len(held.pairs) == 300
            assert (len(held.image), *there) == {"0015": (2429, *[445] * 4), "0022": (1930, *[553] * 4)}[scene]


def test_megadepth_1500_becomes_1500_pairs_of_806_images(real, tmp_path):
    out, told = tmp_path / "out", tmp_path / "report.json"
    argv = ["--from", "loftr", "--source", str(real), "--out", str(out), "--report", str(told)]
    with pytest.raises(SystemExit) as ended:
        cli.main(["index", "build", *argv])
    assert not ended.value.code
    report = json.loads(told.read_text())
    assert (report["scenes"], report["images"], report["pairs"]) == (2, 806, 1500)
    scenes = {scene.name: scene for scene in read_scenes(out, "test")}
    assert {name: len(scene.pairs) for name, scene in scenes.items()} == {"0015": 600, "0022": 900}
    assert {name: len(scene.image) for name, scene in scenes.items()} == {"0015": 328, "0022": 478}


def test_a_tree_with_the_names_of_megadepth_1500_is_loaded(real, tmp_path):
    importer = Loftr(real, Loftr.Params())
    names = {
        name for paths in importer.files().values() for path in paths for name in importer.read(path).image if name
    }
    picture = np.random.default_rng(0).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    one = tmp_path / "one.jpg"
    write_image(one, picture)
    for name in names:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.hardlink_to(one)
    report = build_index("loftr", real, tmp_path / "out", images=tmp_path / "images")
    assert (report.images, report.pairs) == (806, 1500)
    source = PairSource(tmp_path / "out", Path(report.raw), None, split="test", names=[])
    assert len(source) == 1500
    for k in (0, 599, 600, 1499):
        pair = source.load(k)
        assert pair.view0.size == (32, 24)
        assert float(np.linalg.det(pair.T_0to1[:3, :3])) == pytest.approx(1, abs=1e-6)
        assert 0.1 <= pair.overlap <= 0.7
