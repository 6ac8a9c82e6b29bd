"""Each fault that can be planted in an index is found, and the picture shows points where geometry puts them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from legacy_forms import write_files, write_loftr
from plane_world import STEP, PlaneWorld
from tiny_world import VIEWS, H, W

from minima_core import cli
from minima_core.data.checking import check_index
from minima_core.data.importing import build_index
from minima_core.data.index import read_scene, write_scene
from minima_core.data.viewing import BAR, GAP, HEIGHT, draw_index
from minima_core.errors import DataError
from minima_core.io.depth import write_depth
from minima_core.io.images import read_image, write_image
from minima_core.manifest import SceneManifest


@pytest.fixture
def world(tmp_path):
    return PlaneWorld(tmp_path).make()


def change(world: PlaneWorld, **fields: object) -> None:
    write_scene(world.index, replace(read_scene(world.index, "alley"), **fields))
    world.list_scenes()


def manifest(world: PlaneWorld, **fields: object) -> None:
    SceneManifest.load(world.index).model_copy(update=fields).save(world.index)


def rename(world: PlaneWorld) -> None:
    scene = read_scene(world.index, "alley")
    write_scene(world.index, replace(scene, name="0015"))
    entries = SceneManifest.load(world.index).scenes
    named = [entry.model_copy(update={"name": "0015"}) if entry.name == "alley" else entry for entry in entries]
    manifest(world, scenes=named)


def copy_across(world: PlaneWorld) -> None:
    scenes = [read_scene(world.index, entry.name) for entry in SceneManifest.load(world.index).scenes]
    of = {scene.split: scene for scene in scenes}
    train, val = (world.raw / of[split].image[1] for split in ("train", "val"))
    shutil.copyfile(train, val)


def far_apart(world: PlaneWorld) -> np.ndarray:
    """Return poses in other units than the depth's: a decimetre is six metres."""
    poses = read_scene(world.index, "alley").T_w2c.copy()
    poses[:, 0, 3] = np.arange(VIEWS) * 6.0
    return poses


FAULTS = {
    "image that is not there": lambda w: (w.raw / "alley/dense0/imgs/001.png").unlink(),
    "image of another size": lambda w: write_image(w.raw / "alley/dense0/imgs/001.png", np.eye(50, dtype=np.uint8)),
    "image without any contrast": lambda w: write_image(
        w.raw / "alley/dense0/imgs/001.png", np.full((H, W, 3), 9, np.uint8)
    ),
    "depth map that is not there": lambda w: (w.raw / "alley/dense0/depths/001.h5").unlink(),
    "holds labels": lambda w: write_depth(w.raw / "alley/dense0/depths/001.h5", -np.ones((H, W), np.float32)),
    "depth map that knows nothing": lambda w: write_depth(w.raw / "alley/dense0/depths/001.h5", np.zeros((H, W))),
    "depth map of another size": lambda w: write_depth(w.raw / "alley/dense0/depths/001.h5", np.ones((9, 9))),
    "image with itself": lambda w: change(w, pairs=np.array([[0, 0], [1, 2], [2, 3]])),
    "pair listed twice": lambda w: change(w, pairs=np.array([[0, 1], [0, 1], [2, 3]])),
    "overlap is not in": lambda w: change(w, overlap=np.array([0.5, np.nan, 0.5])),
    "no pinhole camera": lambda w: change(w, K=np.zeros((VIEWS, 3, 3))),
    "without a rigid pose": lambda w: change(w, T_w2c=np.full((VIEWS, 4, 4), np.nan)),
    "stands twice in its scene": lambda w: change(w, image=["alley/dense0/imgs/001.png"] * VIEWS),
    "describes otherwise": lambda w: write_scene(w.index, replace(read_scene(w.index, "alley"), split="val")),
    "scene of a benchmark": rename,
    "do not meet": lambda w: change(w, T_w2c=far_apart(w)),
    "copy of one in another split": copy_across,
    "without homographies": lambda w: manifest(w, relation="homography"),
}


def test_a_good_index_has_no_fault(world):
    assert check_index(world.index, world.raw).counts == {}
    assert check_index(world.index, world.raw, workers=2).counts == {}


@pytest.mark.parametrize("fault", FAULTS)
def test_each_fault_is_found(world, fault):
    FAULTS[fault](world)
    found = check_index(world.index, world.raw)
    assert [reason for reason in found.counts if fault in reason], found.counts
    assert all(names for names in found.first.values())


def run(*argv: object) -> int:
    with pytest.raises(SystemExit) as ended:
        cli.main(["index", *(str(a) for a in argv)])
    return int(ended.value.code or 0)


def test_the_command_says_what_is_wrong_and_fails(world, tmp_path, capsys):
    report = tmp_path / "faults.json"
    assert run("validate", world.index, "--raw", world.raw, "--report", report) == 0
    assert json.loads(report.read_text()) == {"faults": [], "images": True}
    assert "no fault in 9 pairs of 3 scenes; pixels of 12 of 12 images looked at\n" in capsys.readouterr().out
    assert run("validate", world.index, "--raw", world.raw, "--sample", 1) == 0
    assert "; pixels of 3 of 12 images looked at (--sample)\n" in capsys.readouterr().out
    FAULTS["image that is not there"](world)
    assert run("validate", world.index, "--raw", world.raw, "--report", report) == 1
    assert json.loads(report.read_text())["faults"][0]["first"] == ["alley/dense0/imgs/001.png"]
    told = capsys.readouterr()
    assert "fault: 1 x image that is not there" in told.out and told.err.count("\n") == 1


def test_without_a_command_it_explains_itself(capsys):
    assert run() == 0
    assert "export" in capsys.readouterr().out


def test_where_there_is_no_index_both_ways_to_one_are_named(tmp_path, capsys):
    for command in (["validate"], ["view", "--out", "v.png"], ["export", "--to", "roma", "--out", tmp_path / "out"]):
        assert run(command[0], tmp_path, *command[1:]) == 1
        told = capsys.readouterr().err
        assert told.endswith("index.json; make it with `minima index build`, or `dvc repro index` in a checkout\n")


def test_an_index_without_images_is_checked_by_its_records(tmp_path, capsys):
    write_loftr(tmp_path / "theirs")
    build_index("loftr", tmp_path / "theirs", tmp_path / "index")
    assert run("validate", tmp_path / "index") == 0
    assert "its images were not looked at" in capsys.readouterr().out
    assert run("view", tmp_path / "index", "--out", tmp_path / "v.png") == 1
    assert "was built without images" in capsys.readouterr().err


def test_points_are_drawn_where_depth_and_pose_put_them(world):
    for name in ("000", "001"):
        write_image(world.raw / f"alley/dense0/imgs/{name}.png", np.full((H, W, 3), 127, np.uint8))
    change(world, pairs=np.array([[0, 1]]), overlap=np.array([0.9]))
    picture = draw_index(world.index, world.raw, count=1, scene="alley")
    scale = HEIGHT / H
    left = round(W * scale)
    assert picture.shape == (BAR + HEIGHT, 2 * left + GAP, 3)
    dots = 0
    step = W // 14
    for x in range((W - 1) % step // 2, W, step):
        y = (H - 1) % step // 2 + 3 * step
        colour = picture[BAR + round(y * scale), round(x * scale)].astype(int)
        if x + STEP > W - 1:  # the wall moves to the right: out of view 1
            assert np.ptp(colour) == 0
            continue
        there = picture[BAR + round(y * scale), left + GAP + round((x + STEP) * scale)].astype(int)
        assert np.ptp(colour) > 60 and np.abs(colour - there).max() < 12
        dots += 1
    assert dots > 10


def test_without_depth_the_lines_pass_where_the_points_are(tmp_path):
    write_files(tmp_path / "data")
    write_loftr(tmp_path / "data/index")
    build_index("loftr", tmp_path / "data/index", tmp_path / "index")
    scene = read_scene(tmp_path / "index", "0015")
    write_scene(tmp_path / "index", replace(scene, depth=[""] * 3))
    for path in scene.image:
        write_image(tmp_path / "data" / path, np.full((32, 48, 3), 127, np.uint8))
    picture = draw_index(tmp_path / "index", tmp_path / "data", count=1, scene="0015")
    right = picture[BAR:, -round(48 * HEIGHT / 32) :].astype(int)
    coloured = np.ptp(right, axis=-1) > 60
    rows = coloured.mean(1)  # the camera moves to the side: the lines are level and go through the whole view
    assert (rows > 0.95).sum() >= 3 and ((rows > 0.95) | (rows < 0.05)).mean() > 0.9


def test_several_scenes_are_drawn_in_one_picture(world, tmp_path):
    assert run("view", world.index, "--raw", world.raw, "--out", tmp_path / "v.png", "--count", 4) == 0
    assert read_image(tmp_path / "v.png").shape[0] == 4 * (BAR + HEIGHT)
    with pytest.raises(DataError, match="no scene cellar"):
        draw_index(world.index, world.raw, count=1, scene="cellar")
