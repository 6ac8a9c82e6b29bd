"""The same walk before a wall in each layout of posed depth frames gives the same cameras and pairs."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from minima_core.data.datasets import _layout
from minima_core.data.datasets._frames import TUM
from minima_core.data.datasets._layout import posed_scene
from minima_core.data.importers.photos import FLAT_VIEW, MADE
from minima_core.data.importing import build_index, raw_folder
from minima_core.data.index import read_scene
from minima_core.data.pairs import PairSource
from minima_core.errors import ConfigError, DataError
from minima_core.io.depth import read_depth
from minima_core.io.images import image_size, write_image
from minima_core.synthesis.base import MODALITIES
from minima_core.synthesis.files import synthesise_files

W, H, FRAMES = 64, 48, 12
K = np.array([[60.0, 0, 31.5], [0, 60, 23.5], [0, 0, 1]])


def pose(k: int) -> np.ndarray:
    """Return camera to world: 5 cm to the right and a degree about the vertical, a step."""
    T_c2w = np.eye(4)
    T_c2w[:3, :3] = Rotation.from_euler("y", k, degrees=True).as_matrix()
    T_c2w[0, 3] = 0.05 * k
    return T_c2w


def colour(k: int, size: tuple[int, int] = (W, H)) -> np.ndarray:
    return np.random.default_rng(k).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)


def depth(units: float) -> np.ndarray:
    z = np.full((H, W), 2 * units, np.uint16)
    z[0, :2] = (0, 65535)
    return z


def seven_scenes(folder: Path) -> None:
    folder = folder / "seq-01"
    folder.mkdir(parents=True)
    np.savetxt(folder / "camera-intrinsics.txt", K)
    for k in range(FRAMES):
        write_image(folder / f"frame-{k:06d}.color.png", colour(k))
        cv2.imwrite(str(folder / f"frame-{k:06d}.depth.png"), depth(1000))
        np.savetxt(folder / f"frame-{k:06d}.pose.txt", pose(k))


def tum(folder: Path, *, name: str = "rgbd_dataset_freiburg9_wall") -> None:
    folder = folder / name
    rgb, deep, truth = (["# a comment"] for _ in range(3))
    for k in range(FRAMES):
        time = 1305031102.175304 + k / 30
        write_image(folder / f"rgb/{time:.6f}.png", colour(k))
        (folder / "depth").mkdir(exist_ok=True)
        cv2.imwrite(str(folder / f"depth/{time + 0.004:.6f}.png"), depth(5000))
        rgb.append(f"{time:.6f} rgb/{time:.6f}.png")
        deep.append(f"{time + 0.004:.6f} depth/{time + 0.004:.6f}.png")
        numbers = [*pose(k)[:3, 3], *Rotation.from_matrix(pose(k)[:3, :3]).as_quat()]
        truth.append(f"{time - 0.003:.4f} " + " ".join(f"{n:.9f}" for n in numbers))
    rgb.append("1305031199.000000 rgb/late.png")  # no pose near it
    for file, lines in (("rgb", rgb), ("depth", deep), ("groundtruth", truth)):
        (folder / f"{file}.txt").write_text("\n".join(lines) + "\n")
    np.savetxt(folder / "camera-intrinsics.txt", K)


def scannet(folder: Path) -> None:
    folder = folder / "scene0000_00"
    for name in ("color", "depth", "pose", "intrinsic"):
        (folder / name).mkdir(parents=True)
    full = np.eye(4)
    full[:3, :3] = K
    np.savetxt(folder / "intrinsic/intrinsic_depth.txt", full)
    for k in range(FRAMES + 1):
        write_image(folder / f"color/{k}.jpg", colour(k, (2 * W, 2 * H)))
        cv2.imwrite(str(folder / f"depth/{k}.png"), depth(1000))
        np.savetxt(folder / f"pose/{k}.txt", pose(k) if k < FRAMES else np.full((4, 4), -np.inf))


LAYOUTS = {"7-Scenes": seven_scenes, "TUM": tum, "ScanNet": scannet}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_scene(tmp_path, layout):
    LAYOUTS[layout](tmp_path / "frames")
    report = build_index("rgbd", tmp_path / "frames", tmp_path / "out", settings={"gap": 2, "overlap": [0.1, 1]})
    assert (report.scenes, report.images, report.splits) == (2, 10, {"train": 1, "val": 1})
    name = next(entry for entry in sorted(path.stem for path in (tmp_path / "out").glob("*.h5")) if "train" in entry)
    scene = read_scene(tmp_path / "out", name)
    assert np.allclose(scene.K, K)
    expected = np.stack([np.linalg.inv(pose(k)) for k in range(8)])
    assert np.allclose(scene.T_w2c, expected, atol=1e-6)
    assert scene.size.tolist() == [[W, H]] * 8
    raw = raw_folder(tmp_path / "out")
    assert raw == tmp_path / "out/raw"
    assert image_size(raw / scene.image[0]) == (W, H)
    z = read_depth(raw / scene.depth[0])
    assert z[0, :3].tolist() == [0, 0, 2] and scene.pairs.tolist()[0] == [0, 1]
    pair = PairSource(tmp_path / "out", raw, None, split="train", names=[]).load(0)
    assert pair.view1.depth.shape == (H, W)


@pytest.mark.parametrize(
    ("layout", "lost"),
    [("7-Scenes", None), ("TUM", "rgb/late.png"), ("ScanNet", f"{FRAMES}.jpg")],
)
def test_the_report_counts_the_frames_that_are_not_taken(tmp_path, layout, lost):
    LAYOUTS[layout](tmp_path / "frames")
    report = build_index("rgbd", tmp_path / "frames", tmp_path / "out", settings={"gap": 2, "overlap": [0.1, 1]})
    skipped = {one.reason: (one.count, one.first) for one in report.skipped}
    count, between = skipped.pop("frame in the gap between training and validation")
    assert count == 2 and len(between) == 2
    assert report.images + count == FRAMES
    assert [count for count, _ in skipped.values()] == ([1] if lost else [])
    assert not lost or skipped["frame without depth or pose"][1][0].endswith(lost)


def test_every_nth_frame_can_be_taken(tmp_path):
    seven_scenes(tmp_path / "frames")
    report = build_index("rgbd", tmp_path / "frames", tmp_path / "out", settings={"every": 3, "gap": 0})
    assert report.images == 4


def test_a_sensor_of_tum_is_known_by_its_name_and_its_distortion_is_taken_out(tmp_path):
    tum(tmp_path / "frames", name="rgbd_dataset_freiburg1_wall")
    folder = tmp_path / "frames/rgbd_dataset_freiburg1_wall"
    (folder / "camera-intrinsics.txt").unlink()
    for path in sorted(folder.glob("*/*.png")):  # of the sensor's size, with a grid
        big = cv2.resize(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), (640, 480), interpolation=cv2.INTER_NEAREST)
        if path.parent.name == "rgb":
            big[:] = 255
            big[:, ::40] = 0
        cv2.imwrite(str(path), big)
    build_index("rgbd", tmp_path / "frames", tmp_path / "out", settings={"gap": 2, "overlap": [0.01, 1]})
    scene = read_scene(tmp_path / "out", "rgbd-rgbd_dataset_freiburg1_wall-train")
    focal, distortion = np.array([[517.3, 0, 318.6], [0, 516.5, 255.3], [0, 0, 1]]), TUM["freiburg1"][1]
    assert np.array_equal(scene.K[0], focal)
    where = cv2.undistortPoints(np.array([[440.0, 20.0]]), focal, np.array(distortion), P=focal)[0, 0]
    assert abs(where[0] - 440) > 2  # so far did the lens move the line
    flat = cv2.imread(str(tmp_path / "out/raw" / scene.image[0]), cv2.IMREAD_GRAYSCALE)
    dark = np.flatnonzero(flat[round(where[1]), 420:460] < 128) + 420
    assert abs(dark.mean() - where[0]) < 1


def test_an_unknown_sensor_of_tum_says_what_to_write(tmp_path):
    tum(tmp_path / "frames")
    next((tmp_path / "frames").glob("*/camera-intrinsics.txt")).unlink()
    with pytest.raises(DataError, match=r"write its 3 x 3 camera into .*camera-intrinsics\.txt"):
        build_index("rgbd", tmp_path / "frames", tmp_path / "out")


@pytest.mark.parametrize(
    ("layout", "gone", "message"),
    [("ScanNet", "pose/3.txt", r"no .*pose/3\.txt"), ("TUM", "depth.txt", r"no .*depth\.txt"), ("TUM", "", "")],
)
def test_what_is_missing_is_named(tmp_path, layout, gone, message):
    LAYOUTS[layout](tmp_path / "frames")
    folder = next((tmp_path / "frames").iterdir())
    if gone:
        (folder / gone).unlink()
    else:
        lines = (folder / "groundtruth.txt").read_text().replace("1305031102", "1305039999")
        (folder / "groundtruth.txt").write_text(lines)
        message = "check the times"
    with pytest.raises(DataError, match=message):
        build_index("rgbd", tmp_path / "frames", tmp_path / "out")


def test_too_short_a_sequence_names_the_setting_as_the_command_line_has_it(tmp_path):
    seven_scenes(tmp_path / "frames")
    with pytest.raises(DataError, match=r"a gap of 9 .* lower the setting gap or") as error:
        build_index("rgbd", tmp_path / "frames", tmp_path / "out", settings={"gap": 9})
    assert "dataset.rgbd" not in str(error.value)


@pytest.mark.parametrize("file", ["rgb", "depth"])
@pytest.mark.parametrize("way_out", ["absolute", "upwards"])
def test_a_list_of_tum_that_leads_out_of_its_folder_is_refused(tmp_path, file, way_out):
    tum(tmp_path / "frames")
    folder = next((tmp_path / "frames").iterdir())
    listed = folder / f"{file}.txt"
    first = sorted((folder / file).iterdir())[0]
    named = first.relative_to(folder).as_posix()
    first.rename(tmp_path / "secret.png")
    other = {"absolute": tmp_path / "secret.png", "upwards": "../../secret.png"}[way_out]
    listed.write_text(listed.read_text().replace(named, str(other)))
    with pytest.raises(DataError, match=rf"{file}\.txt names '.*secret\.png', which is no path inside its folder"):
        build_index("rgbd", tmp_path / "frames", tmp_path / "out", settings={"gap": 2})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_frame_that_is_a_link_out_of_the_source_is_refused(tmp_path, layout):
    LAYOUTS[layout](tmp_path / "frames")
    depth_file = next(p for p in sorted((tmp_path / "frames").rglob("*.png")) if "depth" in str(p))
    depth_file.rename(tmp_path / "elsewhere.png")
    depth_file.symlink_to(tmp_path / "elsewhere.png")
    with pytest.raises(DataError, match="leads out of"):
        build_index("rgbd", tmp_path / "frames", tmp_path / "out", settings={"gap": 2})


def test_overlaps_do_not_depend_on_the_number_of_workers(tmp_path, monkeypatch):
    monkeypatch.setattr(_layout, "ALONE", 0)
    seven_scenes(tmp_path / "frames")
    build_index("rgbd", tmp_path / "frames", tmp_path / "out", settings={"gap": 2})
    name = "rgbd-seq-01-train"
    one, three = (
        posed_scene(tmp_path / "out/raw", name, overlap=(0.1, 0.95), max_pairs=9, seed=0, workers=n) for n in (1, 3)
    )
    assert one.pairs.tolist() == three.pairs.tolist() and one.overlap.tolist() == three.overlap.tolist()
    some = posed_scene(
        tmp_path / "out/raw", name, overlap=(0, 1), max_pairs=9, seed=0, candidates=np.array([[0, 3], [1, 2]])
    )
    assert some.pairs.tolist() == [[0, 3], [1, 2]]


def test_a_folder_of_photographs_becomes_homography_pairs(tmp_path):
    for k in range(3):
        smooth = cv2.resize(colour(k, (30, 20)), (300, 200), interpolation=cv2.INTER_CUBIC)
        write_image(tmp_path / f"photos/{k}.jpg", smooth)
    report = build_index("photos", tmp_path / "photos", tmp_path / "out", settings={"size": [96, 64], "views": 2})
    assert report.images == 9 and set(report.splits) == {"train", "val"} and not report.skipped
    source = PairSource(tmp_path / "out", tmp_path / "out/raw", None, split="train", names=[])
    assert source.load(0).H_0to1 is not None


def test_the_report_counts_the_views_that_a_photograph_lacks(tmp_path):
    for name in ("a", "sky"):
        smooth = cv2.resize(colour(len(name), (30, 20)), (300, 200), interpolation=cv2.INTER_CUBIC)
        smooth[:, : 200 if name == "sky" else 0] = 255
        write_image(tmp_path / f"photos/{name}.jpg", smooth)
    settings = {"size": [96, 64], "views": 8, "crop": 0.5, "shift": 1.0}
    report = build_index("photos", tmp_path / "photos", tmp_path / "out", settings=settings)
    assert [(one.reason, one.count) for one in report.skipped] == [(FLAT_VIEW, 18 - report.images)]
    assert report.skipped[0].first == ["sky.jpg"]


def test_an_index_among_the_photographs_is_not_read_as_photographs(tmp_path):
    for k in range(3):
        smooth = cv2.resize(colour(k, (30, 20)), (300, 200), interpolation=cv2.INTER_CUBIC)
        write_image(tmp_path / f"photos/{k}.jpg", smooth)
    out, settings = tmp_path / "photos/index", {"size": [96, 64], "views": 2}
    first = build_index("photos", tmp_path / "photos", out, settings=settings)
    second = build_index("photos", tmp_path / "photos", out, settings=settings)
    assert (second.images, second.digest) == (9, first.digest)
    assert [(one.reason, one.count) for one in second.skipped] == [(MADE, 9)]
    for photo in (tmp_path / "photos").glob("*.jpg"):
        photo.unlink()
    with pytest.raises(DataError, match=r"no images in .*photos but the views of"):
        build_index("photos", tmp_path / "photos", out, settings=settings)


def test_what_was_synthesised_among_the_photographs_is_not_read_as_photographs(tmp_path):
    for k in range(3):
        smooth = cv2.resize(colour(k, (30, 20)), (300, 200), interpolation=cv2.INTER_CUBIC)
        write_image(tmp_path / f"photos/{k}.jpg", smooth)
    out, settings = tmp_path / "out", {"size": [96, 64], "views": 2}
    first = build_index("photos", tmp_path / "photos", out, settings=settings)
    how = {"modality": "paint", "settings": MODALITIES.settings("paint"), "seed": 0}
    made = tmp_path / "photos/made/paint"
    synthesise_files(tmp_path / "photos", made, **how)
    second = build_index("photos", tmp_path / "photos", out, settings=settings)
    assert (second.images, second.digest) == (9, first.digest)
    assert [(one.reason, one.count) for one in second.skipped] == [(MADE, 3)]
    assert build_index("photos", made, out, settings=settings).images == 9  # asked for by name
    with pytest.raises(DataError, match=r"no images in .*made but what `minima synthesise` made"):
        build_index("photos", made.parent, out, settings=settings)


def test_a_folder_without_photographs_does_not_send_to_params(tmp_path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match="no images in") as error:
        build_index("photos", tmp_path / "photos", tmp_path / "out")
    assert "params.yaml" not in str(error.value)


def test_a_photograph_that_is_a_link_out_of_the_folder_is_refused(tmp_path):
    for k in range(3):
        smooth = cv2.resize(colour(k, (30, 20)), (300, 200), interpolation=cv2.INTER_CUBIC)
        write_image(tmp_path / f"{'elsewhere' if k == 1 else 'photos'}/{k}.png", smooth)
    (tmp_path / "photos/1.png").symlink_to(tmp_path / "elsewhere/1.png")
    with pytest.raises(DataError, match=r"photos/1\.png is refused: it leads out of"):
        build_index("photos", tmp_path / "photos", tmp_path / "out", settings={"size": [96, 64], "views": 2})
    (tmp_path / "elsewhere/1.png").rename(tmp_path / "photos/there.png")
    (tmp_path / "photos/1.png").unlink()
    (tmp_path / "photos/1.png").symlink_to("there.png")  # one within it is a copy
    report = build_index("photos", tmp_path / "photos", tmp_path / "out", settings={"size": [96, 64], "views": 2})
    assert (report.images, [one.count for one in report.skipped]) == (9, [1])


def test_photographs_that_give_no_views_are_counted(tmp_path):
    for k in range(3):
        smooth = cv2.resize(colour(k % 2, (30, 20)), (300, 200), interpolation=cv2.INTER_CUBIC)
        write_image(tmp_path / f"photos/{k}.png", smooth)  # the last shows what the first does
    report = build_index("photos", tmp_path / "photos", tmp_path / "out", settings={"size": [96, 64], "views": 2})
    assert report.images == 6
    assert [(one.count, one.first) for one in report.skipped] == [(1, ["2.png"])]


@pytest.mark.parametrize("form", ["photos", "aligned"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("views", 0),
        ("rotation", 400),
        ("perspective", 2),
        ("photos_per_scene", 0),
        ("crop", 0),
        ("max_saturated", -1),
        ("min_std", -1),
        ("size", [0, 64]),
        ("scale", [0, 1]),
        ("scale", [2, 1]),
    ],
)
def test_a_setting_out_of_bounds_is_named(tmp_path, form, name, value):
    for kind in ("rgb", "infrared"):
        write_image(tmp_path / f"photos/{kind}/0.jpg", colour(0, (300, 200)))
    with pytest.raises(ConfigError, match=rf"^--set\.{name}\b.*: ") as error:
        build_index(form, tmp_path / "photos", tmp_path / "out", settings={name: value})
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]
