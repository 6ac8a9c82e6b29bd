"""COLMAP models of a wall that cameras pass by, with depth maps in each form that is read."""

from __future__ import annotations

from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from PIL import ExifTags, Image

from minima_core.data.importers.colmap import TURNED
from minima_core.data.importing import build_index
from minima_core.data.index import read_scene
from minima_core.data.pairs import PairSource
from minima_core.errors import ConfigError, DataError
from minima_core.io.depth import read_depth, write_depth
from minima_core.io.images import read_image, write_image

pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is an optional extra")
W, H, VIEWS = 64, 48, 10


def write_project(
    home: Path,
    *,
    form: str = "geometric",
    model: str = "PINHOLE",
    params: tuple[float, ...] = (60, 60, W / 2, H / 2),
    names: str | list[str] = "{:02d}.jpg",
    points: int = 40,
) -> None:
    """Write views 5 cm apart of a wall 2 units away, that share points with the next four."""
    names = [names.format(k) for k in range(VIEWS)] if isinstance(names, str) else names
    found = pycolmap.Reconstruction()
    found.add_camera_with_trivial_rig(pycolmap.Camera(model=model, width=W, height=H, params=list(params), camera_id=1))
    for k in range(VIEWS):
        image = pycolmap.Image(names[k], np.zeros((points, 2)), 1, k + 1)
        matrix = np.eye(4)[:3]
        matrix[0, 3] = -0.05 * k
        found.add_image_with_trivial_frame(image, pycolmap.Rigid3d(matrix))
        noise = np.random.default_rng(k).integers(0, 255, (H, W, 3), dtype=np.uint8)
        write_image(home / "images" / names[k], noise)
        depth = np.full((H, W), 2, np.float32)
        depth[0, 0] = 0
        stem = Path(names[k]).with_suffix("")
        if form == "h5":
            write_depth(home / f"depths/{stem}.h5", depth)
        elif form == "png":
            path = home / f"depths/{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), (depth * 1000).astype(np.uint16))
        elif form:
            path = home / f"stereo/depth_maps/{names[k]}.{form}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(f"{W}&{H}&1&".encode() + depth.tobytes())
    for first in range(0, VIEWS, 5):  # two groups of five views share points
        for n in range(points):
            track = pycolmap.Track()
            for k in range(first, first + 5):
                track.add_element(k + 1, n)
            found.add_point3D(np.array([0, 0, 2.0]), track)
    (home / "sparse").mkdir(parents=True, exist_ok=True)
    found.write(str(home / "sparse"))


@pytest.mark.parametrize("form", ["geometric", "photometric", "h5", "png"])
def test_a_workspace_becomes_posed_pairs(tmp_path, form):
    write_project(tmp_path / "castle", form=form)
    settings = {"overlap": [0.1, 1.0], "validation_share": 0.3}
    report = build_index("colmap", tmp_path / "castle", tmp_path / "out", settings=settings)
    assert (report.scenes, report.images, report.splits) == (2, 10, {"train": 1, "val": 1})
    scene = read_scene(tmp_path / "out", "castle-train")
    assert scene.K[0].tolist() == [[60, 0, W / 2 - 0.5], [0, 60, H / 2 - 0.5], [0, 0, 1]]
    assert scene.T_w2c[3][0, 3] == pytest.approx(-0.15)
    # views 0 to 4 share points, and 5 and 6 do; 4 and 5 see the same but share none
    assert [4, 5] not in scene.pairs.tolist() and len(scene.pairs) == 10 + 1
    k = scene.pairs.tolist().index([0, 4])
    assert scene.overlap[k] == pytest.approx(1 - 6 / W, abs=0.08)
    depth = read_depth(tmp_path / "out/raw" / scene.depth[0])
    assert depth[0, :2].tolist() == [0, 2]
    pair = PairSource(tmp_path / "out", tmp_path / "out/raw", None, split="train", names=[]).load(0)
    assert pair.T_0to1[0, 3] == pytest.approx(-0.05)


def test_images_in_folders_keep_their_places_apart(tmp_path):
    write_project(tmp_path / "castle", names="cam0/{:02d}.png")
    build_index("colmap", tmp_path / "castle", tmp_path / "out", settings={"overlap": [0.1, 1]})
    assert read_scene(tmp_path / "out", "castle-train").image[0] == "castle-train/dense0/imgs/cam0-00.jpg"


def test_distortion_is_taken_out_of_image_and_depth(tmp_path):
    write_project(tmp_path / "castle", form="h5", model="SIMPLE_RADIAL", params=(60, W / 2, H / 2, 0.2))
    grid = np.full((H, W, 3), 255, np.uint8)
    grid[:, 8] = 0
    write_image(tmp_path / "castle/images/00.jpg", grid)
    build_index("colmap", tmp_path / "castle", tmp_path / "out", settings={"overlap": [0.1, 1]})
    scene = read_scene(tmp_path / "out", "castle-train")
    K = scene.K[0]
    where = cv2.undistortPoints(np.array([[8.0, 6.0]]), K, np.array([0.2, 0, 0, 0]), P=K)[0, 0]
    row = read_image(tmp_path / "out/raw" / scene.image[0])[round(where[1])].mean(-1)
    assert abs(where[0] - 8) > 0.7
    assert abs(float((255 - row)[2:20] @ np.arange(2, 20) / (255 - row)[2:20].sum()) - where[0]) < 0.6


def test_a_smaller_depth_map_lies_on_its_image(tmp_path):
    write_project(tmp_path / "castle")
    w, h = 43, 32
    columns = np.tile(np.arange(1, w + 1, dtype="<f4"), (h, 1))
    for path in (tmp_path / "castle/stereo/depth_maps").iterdir():
        path.write_bytes(f"{w}&{h}&1&".encode() + columns.tobytes())
    build_index("colmap", tmp_path / "castle", tmp_path / "out", settings={"overlap": [0.0, 1.0]})
    depth = read_depth(next((tmp_path / "out/raw").rglob("*.h5")))
    nearest = ((np.arange(W) + 0.5) * w / W).astype(int) + 1
    assert depth[0].tolist() == nearest.tolist()


def test_several_models_are_scenes_of_one_split_each(tmp_path):
    for name in ("0001", "0002", "0015"):
        write_project(tmp_path / "sfm" / name)
    report = build_index("colmap", tmp_path / "sfm", tmp_path / "out", settings={"overlap": [0.1, 1]}, workers=2)
    assert report.splits == {"test": 1, "train": 1, "val": 1}
    assert read_scene(tmp_path / "out", "0015").split == "test"


def test_what_is_missing_is_counted(tmp_path):
    write_project(tmp_path / "castle")
    (tmp_path / "castle/images/03.jpg").unlink()
    (tmp_path / "castle/stereo/depth_maps/04.jpg.geometric.bin").unlink()
    write_image(tmp_path / "castle/images/05.jpg", np.zeros((W, H, 3), np.uint8))
    report = build_index("colmap", tmp_path / "castle", tmp_path / "out", settings={"overlap": [0.1, 1]})
    assert skipped(report) == {
        "image that is not there": ["03.jpg"],
        "image without a depth map": ["04.jpg"],
        "image of another size than its camera": ["05.jpg"],
    }


@pytest.mark.parametrize("turn", [3, 6])
def test_images_that_their_exif_turns_are_left_out_for_the_model_is_of_them_as_stored(tmp_path, turn):
    write_project(tmp_path / "castle", model="SIMPLE_RADIAL", params=(60, W / 2, H / 2, 0.01))
    with Image.open(tmp_path / "castle/images/03.jpg") as image:
        exif = image.getexif()
        exif[ExifTags.Base.Orientation] = turn
        image.save(tmp_path / "castle/images/03.jpg", exif=exif)
    report = build_index("colmap", tmp_path / "castle", tmp_path / "out", settings={"overlap": [0.1, 1]})
    assert skipped(report) == {TURNED: ["03.jpg"]}


def skipped(report) -> dict[str, list[str]]:
    return {one.reason: one.first for one in report.skipped}


@pytest.mark.parametrize(("one", "other"), [("00.jpg", "00.png"), ("0-0.jpg", "0/0.jpg")])
def test_two_images_whose_copies_would_be_one_file_are_not_mixed(tmp_path, one, other):
    write_project(tmp_path / "castle", names=[one, other, *(f"{k:02d}.jpg" for k in range(2, VIEWS))])
    report = build_index("colmap", tmp_path / "castle", tmp_path / "out", settings={"overlap": [0.1, 1]})
    assert report.images == VIEWS - 1
    assert skipped(report) == {"image of the same name in the model, but for suffix and folder": [other]}
    scene = read_scene(tmp_path / "out", "castle-train")
    kept = next(k for k, image in enumerate(scene.image) if Path(image).stem == Path(one).stem)
    assert scene.T_w2c[kept][0, 3] == 0  # of the first of the two, and so is the picture
    copy = read_image(tmp_path / "out/raw" / scene.image[kept])
    assert (copy == read_image(tmp_path / "castle/images" / one)).all()


def test_models_whose_names_would_be_one_are_scenes_of_their_own(tmp_path):
    for name in ("a/b", "a-b", "c"):
        write_project(tmp_path / "sfm" / name)
    report = build_index("colmap", tmp_path / "sfm", tmp_path / "out", settings={"overlap": [0.1, 1]})
    assert (report.scenes, report.images) == (3, 3 * VIEWS)


def test_a_model_with_fewer_than_two_usable_images_is_counted(tmp_path):
    for name in ("one", "two", "three"):
        write_project(tmp_path / "sfm" / name)
    for k in range(VIEWS - 1):
        (tmp_path / f"sfm/one/images/{k:02d}.jpg").unlink()
    report = build_index("colmap", tmp_path / "sfm", tmp_path / "out", settings={"overlap": [0.1, 1]})
    assert report.splits == {"train": 1, "val": 1}
    assert {one.reason: one.count for one in report.skipped} == {
        "image that is not there": VIEWS - 1,
        "model with fewer than two usable images": 1,
        "only usable image of its model": 1,
    }
    assert skipped(report)["model with fewer than two usable images"] == ["one/sparse"]


def test_a_single_model_that_is_left_is_split_in_two(tmp_path):
    for name in ("one", "two"):
        write_project(tmp_path / "sfm" / name)
    for file in (tmp_path / "sfm/one/images").iterdir():
        file.unlink()
    report = build_index("colmap", tmp_path / "sfm", tmp_path / "out", settings={"overlap": [0.1, 1]})
    assert report.splits == {"train": 1, "val": 1} and report.images == VIEWS


@pytest.mark.parametrize("models", [["one"], ["one", "two"]])
def test_without_any_usable_model_it_says_what_its_images_lack(tmp_path, models):
    for name in models:
        write_project(tmp_path / "sfm" / name)
        for file in (tmp_path / "sfm" / name / "stereo/depth_maps").iterdir():
            file.unlink()
    with pytest.raises(DataError, match=rf"has two usable images \({10 * len(models)} x") as error:
        build_index("colmap", tmp_path / "sfm", tmp_path / "out")
    assert "image without a depth map, for example 00.jpg" in str(error.value)
    assert "dvc repro" not in str(error.value)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("0&0&1&", "says that it is 0 x 0 pixels"),
        ("-64&48&1&", "says that it is -64 x 48 pixels"),
        ("64&48&3&", "of 3 channels, a depth map has one"),
        ("64&47&1&", "3072 values for 64 x 47 pixels"),
        ("64&48", "is no depth map of COLMAP"),
    ],
)
def test_a_depth_map_that_says_a_wrong_size_is_one_line(tmp_path, header, message):
    write_project(tmp_path / "castle")
    file = tmp_path / "castle/stereo/depth_maps/00.jpg.geometric.bin"
    values = file.read_bytes().split(b"&", 3)[3]
    file.write_bytes(header.encode() + (b"" if header.startswith("0") else values))
    with pytest.raises(DataError, match=message) as error:
        build_index("colmap", tmp_path / "castle", tmp_path / "out")
    assert "00.jpg.geometric.bin" in str(error.value)


def test_a_depth_map_without_pixels_is_one_line(tmp_path):
    write_project(tmp_path / "castle", form="h5")
    with h5py.File(tmp_path / "castle/depths/00.h5", "w") as file:
        file["depth"] = np.zeros((0, 0), np.float32)
    with pytest.raises(DataError, match=r"00\.h5 holds a depth map without pixels"):
        build_index("colmap", tmp_path / "castle", tmp_path / "out")


def test_what_cannot_be_used_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no cameras\.bin or cameras\.txt"):
        build_index("colmap", tmp_path / "empty", tmp_path / "out")
    write_project(tmp_path / "bare", form="")
    with pytest.raises(DataError, match="patch_match_stereo"):
        build_index("colmap", tmp_path / "bare", tmp_path / "out")
    write_project(tmp_path / "castle")
    (tmp_path / "castle/stereo/depth_maps/00.jpg.geometric.bin").write_bytes(b"64&48&1&cut off")
    with pytest.raises(DataError, match=r"00\.jpg\.geometric\.bin is no depth map"):
        build_index("colmap", tmp_path / "castle", tmp_path / "out")
    (tmp_path / "castle/sparse/images.bin").write_bytes(b"no model")
    with pytest.raises(DataError, match="cannot read the model"):
        build_index("colmap", tmp_path / "castle", tmp_path / "out")
    write_project(tmp_path / "fish", model="OPENCV_FISHEYE", params=(60, 60, W / 2, H / 2, 0.1, 0, 0, 0))
    with pytest.raises(DataError, match="image_undistorter"):
        build_index("colmap", tmp_path / "fish", tmp_path / "out")


def test_a_model_whose_images_lead_out_is_refused(tmp_path):
    write_image(tmp_path / "secret/00.jpg", np.zeros((H, W, 3), np.uint8))
    write_project(tmp_path / "castle", names="../../secret/{:02d}.jpg")
    with pytest.raises(DataError, match="is refused: it names"):
        build_index("colmap", tmp_path / "castle", tmp_path / "out")


def test_without_pycolmap_it_says_how_to_install_it(tmp_path, monkeypatch):
    write_project(tmp_path / "castle")
    monkeypatch.setitem(__import__("sys").modules, "pycolmap", None)
    with pytest.raises(ConfigError, match=r"pip install 'minima-pipeline\[colmap\]'"):
        build_index("colmap", tmp_path / "castle", tmp_path / "out")
