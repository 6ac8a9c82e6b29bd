"""A folder of posed depth frames: ``frame-NNNNNN.{color.jpg,depth.png,pose.txt}`` with ``camera-intrinsics.txt``.

``pose.txt`` is camera to world (4 x 4, metres), ``depth.png`` uint16 millimetres 0 and 65535 meaning unknown, and one
3 x 3 intrinsics holds for colour and depth. Each sequence is split in time: its first frames are for training, its last
for validation, and ``gap`` frames between them are left out, so that the two halves do not share a moment. They show
the same room, though: validation says how training goes, not how well a model does elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from pydantic import Field

from minima_core.config import Section
from minima_core.data.datasets._layout import (
    CAMERAS,
    Camera,
    depth_path,
    image_path,
    posed_scene,
    scene_names,
    write_cameras,
)
from minima_core.data.datasets.base import Dataset
from minima_core.data.index import Scene
from minima_core.errors import DataError
from minima_core.geometry.pose import orthonormality_error
from minima_core.io.atomic import atomic_path
from minima_core.io.depth import write_depth
from minima_core.io.images import read_image
from minima_core.manifest import Split
from minima_core.parallel import map_jobs

INTRINSICS = "camera-intrinsics.txt"
FRAME = re.compile(r"(frame-\d+)\.(color\.jpg|depth\.png|pose\.txt)")
KINDS = ("color.jpg", "depth.png", "pose.txt")
INVALID = (0, 65535)  # millimetres that mean "unknown"
RIGID = 5e-3  # how far R R^T may be from I in a text file of few digits; it is made exact below this


@dataclass(frozen=True)
class _Sequence:
    name: str
    folder: Path
    frames: list[str]
    K: np.ndarray


class Rgbd(Dataset):
    """Posed depth frames of the user."""

    class Params(Section):
        """Settings, ``dataset.rgbd`` in params.yaml."""

        root: str  # one sequence, or folders that each hold one
        licence: str  # of the frames, as the user knows it
        validation_share: float = Field(gt=0, lt=1)  # of a sequence's frames, its last ones
        gap: int = Field(ge=0)  # frames left out between training and validation
        overlap: tuple[float, float]  # a pair's overlap lies in (low, high]
        max_pairs: int = Field(ge=1)  # a scene

    relation = "depth"

    def __init__(self, params: Section, *, seed: int) -> None:
        super().__init__(params, seed=seed)
        self.licence = self.settings.licence

    @property
    def settings(self) -> Params:
        """The settings with their type."""
        return cast("Rgbd.Params", self.params)

    def source(self) -> list[tuple[str, int, int]]:
        """Return what identifies the frames."""
        root = Path(self.settings.root)
        files = sorted(p for p in root.rglob("*") if p.name == INTRINSICS or FRAME.fullmatch(p.name))
        return [(str(p.relative_to(root)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]

    def prepare(self, root: Path, *, workers: int = 1) -> None:
        """Bring the frames under ``root``: the images byte for byte, the depth as HDF5 in metres."""
        jobs, scenes = [], []
        for sequence in _sequences(Path(self.settings.root)):
            poses = {frame: read_pose(sequence.folder / f"{frame}.pose.txt") for frame in sequence.frames}
            for split, frames in self._split(sequence).items():
                scene = f"{sequence.name}-{split}"
                cameras = [Camera(frame, sequence.K, poses[frame]) for frame in frames]
                scenes.append((scene, split, cameras))
                jobs += [(sequence.folder, frame, root, scene, sequence.K) for frame in frames]
        map_jobs(_bring, jobs, workers=workers, what="converting frames")
        for scene, split, cameras in scenes:
            write_cameras(root, scene, split, cameras)

    def _split(self, sequence: _Sequence) -> dict[Split, list[str]]:
        frames, p = sequence.frames, self.settings
        last = max(2, round(len(frames) * p.validation_share))
        first = len(frames) - last - p.gap
        if first < 2:
            raise DataError(
                f"{sequence.folder} has {len(frames)} frames, too few for training, a gap of {p.gap} and {last} for "
                "validation; lower dataset.rgbd.gap or give a longer sequence"
            )
        return {"train": frames[:first], "val": frames[-last:]}

    def scenes(self, root: Path) -> Iterator[Scene]:
        """Yield the scenes with their pairs."""
        p = self.settings
        for name in scene_names(root, CAMERAS):
            yield posed_scene(root, name, overlap=p.overlap, max_pairs=p.max_pairs, seed=self.seed)


def _sequences(root: Path) -> list[_Sequence]:
    """Return the sequences in ``root`` itself or in its folders.

    Raises:
        DataError: if there is none, or one is incomplete.
    """
    if not root.is_dir():
        raise DataError(f"no folder {root}; set dataset.rgbd.root in params.yaml to where the frames are")
    folders = [root] if _frames(root) else [p for p in sorted(root.iterdir()) if p.is_dir() and _frames(p)]
    if not folders:
        raise DataError(f"no frame-NNNNNN.color.jpg in {root} or a folder in it; set dataset.rgbd.root in params.yaml")
    found = []
    for folder in folders:
        frames = _frames(folder)
        for frame in frames:
            for kind in KINDS:
                if not (folder / f"{frame}.{kind}").is_file():
                    raise DataError(
                        f"no {folder / f'{frame}.{kind}'}; add it, or remove the other files of {frame} from the folder"
                    )
        name = "rgbd" if folder == root else f"rgbd-{folder.name}"
        found.append(_Sequence(name, folder, frames, read_intrinsics(folder / INTRINSICS)))
    return found


def _frames(folder: Path) -> list[str]:
    matches = (FRAME.fullmatch(path.name) for path in folder.iterdir())
    return sorted({match.group(1) for match in matches if match})


def _read_matrix(path: Path, side: int) -> np.ndarray:
    try:
        matrix = np.array([[float(x) for x in line.split()] for line in path.read_text().splitlines() if line.strip()])
    except FileNotFoundError:
        raise DataError(f"no {path}; add it ({side} x {side} numbers)") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not {side} x {side} numbers ({error}); correct it or remove the frame") from None
    if matrix.shape != (side, side):
        raise DataError(f"{path} holds {matrix.shape} numbers, {side} x {side} expected; correct it")
    if not np.isfinite(matrix).all():
        raise DataError(f"{path} holds NaN or infinity (tracking was lost); remove the three files of this frame")
    return matrix


def read_intrinsics(path: Path) -> np.ndarray:
    """Return (3, 3) intrinsics from a text file.

    Raises:
        DataError: if the file is missing or what it holds is no pinhole camera.
    """
    K = _read_matrix(path, 3)
    if K[0, 0] <= 0 or K[1, 1] <= 0 or not np.array_equal(K[2], [0, 0, 1]) or K[1, 0] != 0:
        raise DataError(f"{path} is no pinhole camera (rows fx s cx, 0 fy cy, 0 0 1 with fx, fy > 0); correct it")
    return K


def read_pose(path: Path) -> np.ndarray:
    """Return (4, 4) world to camera from a text file that holds camera to world, its rotation made exact.

    Raises:
        DataError: if the file is missing, holds NaN or is no rigid motion.
    """
    T_c2w = _read_matrix(path, 4)
    R = T_c2w[:3, :3]
    rigid = float(orthonormality_error(torch.from_numpy(R))) < RIGID
    if not rigid or not np.allclose(T_c2w[3], [0, 0, 0, 1], atol=1e-9):
        raise DataError(f"{path} is no rigid motion (rotation, translation, 0 0 0 1); correct it or remove the frame")
    u, _, vt = np.linalg.svd(R)
    T_w2c = np.eye(4)
    T_w2c[:3, :3] = (u @ vt).T
    T_w2c[:3, 3] = -T_w2c[:3, :3] @ T_c2w[:3, 3]
    return T_w2c


def _bring(job: tuple[Path, str, Path, str, np.ndarray]) -> None:
    """Convert one frame, unless an earlier run did."""
    folder, frame, root, scene, K = job
    target = root / image_path(scene, frame)
    if target.is_file():  # written last
        return
    colour, depth_file = folder / f"{frame}.color.jpg", folder / f"{frame}.depth.png"
    h, w = read_image(colour).shape[:2]
    depth = cv2.imread(str(depth_file), cv2.IMREAD_UNCHANGED)
    if depth is None or depth.dtype != np.uint16 or depth.ndim != 2:
        raise DataError(f"{depth_file} is no 16-bit gray PNG; replace it or remove the three files of {frame}")
    if depth.shape != (h, w):
        raise DataError(
            f"{depth_file} is {depth.shape[1]} x {depth.shape[0]}, {colour.name} {w} x {h}; the two must be registered"
        )
    if not (0 <= K[0, 2] <= w and 0 <= K[1, 2] <= h):
        raise DataError(
            f"{folder / INTRINSICS} puts the principal point at ({K[0, 2]:g}, {K[1, 2]:g}), outside {w} x {h} pixels"
        )
    write_depth(root / depth_path(scene, frame), np.where(np.isin(depth, INVALID), 0, depth / 1000.0))
    with atomic_path(target) as temporary:
        temporary.write_bytes(colour.read_bytes())
