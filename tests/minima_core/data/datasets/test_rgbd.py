"""Posed frames of a user: a small sequence made here, each fault planted in it, and the real one."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import ExifTags, Image

from minima_core.data.datasets._frames import read_pose
from minima_core.data.datasets.rgbd import Rgbd
from minima_core.errors import DataError
from minima_core.io.depth import read_depth
from minima_core.io.images import write_image

REAL = Path(__file__).resolve().parents[4].parent / "shared/data/rgbd"
W, H = 64, 48


def dataset(root: Path, **changes) -> Rgbd:
    settings = {
        "root": str(root),
        "licence": "CC0-1.0",
        "validation_share": 0.25,
        "gap": 1,
        "overlap": (0.1, 1.0),
        "max_pairs": 100,
    }
    return Rgbd(Rgbd.Params(**(settings | changes)), seed=0)


def make(folder: Path, frames: int = 12) -> Path:
    """Write a camera that steps 5 cm to the right before a wall 2 m away."""
    folder.mkdir(parents=True)
    (folder / "camera-intrinsics.txt").write_text("60 0 31.5\n0 60 23.5\n0 0 1\n")
    rng = np.random.default_rng(0)
    for k in range(frames):
        stem = folder / f"frame-{k:06d}"
        write_image(stem.with_name(stem.name + ".color.jpg"), rng.integers(0, 255, (H, W, 3), dtype=np.uint8))
        depth = np.full((H, W), 2000, np.uint16)
        depth[0, :3] = (0, 65535, 1500)
        cv2.imwrite(f"{stem}.depth.png", depth)
        pose = np.eye(4)
        pose[0, 3] = 0.05 * k
        np.savetxt(f"{stem}.pose.txt", pose)
    return folder


def test_depth_is_metres_and_unknown_is_zero(tmp_path):
    source = make(tmp_path / "my frames")
    data = dataset(source)
    data.prepare(tmp_path / "raw")
    depth = read_depth(tmp_path / "raw/rgbd-train/dense0/depths/frame-000000.h5")
    assert depth[0, :4].tolist() == [0, 0, 1.5, 2.0]
    copied = tmp_path / "raw/rgbd-train/dense0/imgs/frame-000000.jpg"
    assert copied.read_bytes() == (source / "frame-000000.color.jpg").read_bytes()


def test_poses_are_turned_round_and_overlap_follows_the_step(tmp_path):
    data = dataset(make(tmp_path / "s"))
    data.prepare(tmp_path / "raw")
    train, val = data.scenes(tmp_path / "raw")
    assert (train.name, train.split, val.name, val.split) == ("rgbd-train", "train", "rgbd-val", "val")
    assert train.T_w2c[2][0, 3] == pytest.approx(-0.10)
    assert train.material == [""] * 8
    # 5 cm at 2 m and f = 60 is 1.5 pixels; 4 steps lose 6 of 64 columns
    k = train.pairs.tolist().index([0, 4])
    assert train.overlap[k] == pytest.approx(1 - 6 / 64, abs=0.08)


def test_training_and_validation_share_no_frame_and_leave_a_gap(tmp_path):
    data = dataset(make(tmp_path / "s"), gap=2)
    data.prepare(tmp_path / "raw")
    train, val = data.scenes(tmp_path / "raw")
    frames = [[int(Path(p).stem[-6:]) for p in scene.image] for scene in (train, val)]
    assert frames == [list(range(7)), [9, 10, 11]]


def test_several_sequences_lie_in_folders(tmp_path):
    make(tmp_path / "house" / "hall")
    make(tmp_path / "house" / "attic")
    data = dataset(tmp_path / "house")
    data.prepare(tmp_path / "raw")
    names = [scene.name for scene in data.scenes(tmp_path / "raw")]
    assert names == ["rgbd-attic-train", "rgbd-attic-val", "rgbd-hall-train", "rgbd-hall-val"]


def test_two_folders_that_would_be_one_scene_are_named(tmp_path):
    make(tmp_path / "house" / "hall" / "left")
    make(tmp_path / "house" / "hall-left")
    with pytest.raises(DataError, match=r"hall/left and .*hall-left would both be called rgbd-hall-left"):
        dataset(tmp_path / "house").prepare(tmp_path / "raw")


def nan(path: Path) -> None:
    path.write_text(path.read_text().replace("1.000000000000000000e+00", "nan", 1))


def turn(path: Path) -> None:
    with Image.open(path) as image:
        exif = image.getexif()
        exif[ExifTags.Base.Orientation] = 3
        image.save(path, exif=exif)


FAULTS = {
    "missing depth": (lambda f: (f / "frame-000003.depth.png").unlink(), "no .*frame-000003.depth.png"),
    "missing pose": (lambda f: (f / "frame-000003.pose.txt").unlink(), "no .*frame-000003.pose.txt"),
    "missing colour": (lambda f: (f / "frame-000003.color.jpg").unlink(), "no .*frame-000003.color.jpg"),
    "NaN pose": (lambda f: nan(f / "frame-000003.pose.txt"), "frame-000003.pose.txt holds NaN"),
    "stretched pose": (
        lambda f: np.savetxt(f / "frame-000003.pose.txt", np.diag([1.1, 1, 1, 1])),
        "frame-000003.pose.txt is no rigid motion",
    ),
    "mirrored pose": (
        lambda f: np.savetxt(f / "frame-000003.pose.txt", np.diag([-1.0, 1, 1, 1])),
        "frame-000003.pose.txt is no rigid motion",
    ),
    "text in pose": (
        lambda f: (f / "frame-000003.pose.txt").write_text("lost\n"),
        "frame-000003.pose.txt is not 4 x 4",
    ),
    "ragged pose": (
        lambda f: (f / "frame-000003.pose.txt").write_text("1 2\n3\n"),
        "frame-000003.pose.txt is not 4 x 4",
    ),
    "other size": (
        lambda f: cv2.imwrite(str(f / "frame-000003.depth.png"), np.ones((24, 32), np.uint16)),
        "frame-000003.depth.png is 32 x 24",
    ),
    "8-bit depth": (
        lambda f: cv2.imwrite(str(f / "frame-000003.depth.png"), np.ones((H, W), np.uint8)),
        "frame-000003.depth.png is no 16-bit gray PNG",
    ),
    "truncated JPEG": (
        lambda f: (f / "frame-000003.color.jpg").write_bytes((f / "frame-000003.color.jpg").read_bytes()[:900]),
        "cannot read .*frame-000003.color.jpg",
    ),
    "turned by EXIF": (lambda f: turn(f / "frame-000003.color.jpg"), "EXIF of .*frame-000003.color.jpg turns it"),
    "no intrinsics": (lambda f: (f / "camera-intrinsics.txt").unlink(), "no .*camera-intrinsics.txt"),
    "2 x 3 intrinsics": (
        lambda f: (f / "camera-intrinsics.txt").write_text("1 0 0\n0 1 0\n"),
        "camera-intrinsics.txt holds .* numbers, 3 x 3 expected",
    ),
    "negative focal length": (
        lambda f: (f / "camera-intrinsics.txt").write_text("-60 0 31\n0 60 23\n0 0 1\n"),
        "camera-intrinsics.txt is no pinhole camera",
    ),
    "intrinsics of a larger image": (
        lambda f: (f / "camera-intrinsics.txt").write_text("600 0 320\n0 600 240\n0 0 1\n"),
        "camera-intrinsics.txt puts the principal point at",
    ),
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda name: name)
def test_fault_is_one_line_that_names_the_file(tmp_path, fault):
    source = make(tmp_path / "s")
    damage, message = FAULTS[fault]
    damage(source)
    with pytest.raises(DataError, match=message) as error:
        dataset(source).prepare(tmp_path / "raw")
    assert "\n" not in str(error.value)


def test_empty_missing_and_short_folders(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no frame-NNNNNN\.color\.jpg or \.png, .* in .*empty"):
        dataset(tmp_path / "empty").prepare(tmp_path / "raw")
    with pytest.raises(DataError, match=r"no folder .*gone; set dataset\.rgbd\.root"):
        dataset(tmp_path / "gone").prepare(tmp_path / "raw")
    with pytest.raises(DataError, match=r"has 4 frames, too few .* lower the setting gap"):
        dataset(make(tmp_path / "short", 4)).prepare(tmp_path / "raw")
    with pytest.raises(DataError, match="validation; give a longer sequence"):
        dataset(make(tmp_path / "shorter", 3), gap=0).prepare(tmp_path / "raw")


def test_rotation_of_few_digits_becomes_exact(tmp_path):
    pose = np.eye(4)
    angle = 0.3
    pose[:2, :2] = np.round([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], 3)
    np.savetxt(tmp_path / "p.txt", pose)
    R = read_pose(tmp_path / "p.txt")[:3, :3]
    assert np.abs(R @ R.T - np.eye(3)).max() < 1e-14


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real frames at {REAL}")
def test_real_sequence_gives_pairs_in_range(tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    (few / "camera-intrinsics.txt").symlink_to(REAL / "camera-intrinsics.txt")
    for path in sorted(REAL.glob("frame-*"))[: 3 * 16]:
        (few / path.name).symlink_to(path)
    data = dataset(few, overlap=(0.1, 0.9))
    data.prepare(tmp_path / "raw", workers=2)
    train, val = data.scenes(tmp_path / "raw")
    assert len(train.image) + len(val.image) == 15
    assert len(train.pairs) > 10
    assert train.overlap.min() > 0.1 and train.overlap.max() <= 0.9
    # neighbours in time see more of each other than frames far apart
    steps = np.abs(train.pairs[:, 0] - train.pairs[:, 1])
    assert train.overlap[steps <= 3].mean() > train.overlap[steps >= 7].mean()
