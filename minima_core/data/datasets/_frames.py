"""Posed depth frames as they are found on disk: plain folders, 7-Scenes, TUM RGB-D and ScanNet.

| layout | colour | depth | pose, camera to world | camera |
|---|---|---|---|---|
| plain, 7-Scenes | ``frame-N.color.jpg``, ``.png`` | ``.depth.png``, mm | ``.pose.txt`` | ``camera-intrinsics.txt`` |
| TUM | ``rgb.txt`` | ``depth.txt``, 1/5000 m | ``groundtruth.txt``, by time | of the sensor, by name |
| ScanNet | ``color/N.jpg`` | ``depth/N.png``, mm | ``pose/N.txt`` | ``intrinsic/intrinsic_depth.txt`` |
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from minima_core.data.datasets._layout import depth_path, image_path
from minima_core.errors import DataError
from minima_core.geometry.pose import orthonormality_error
from minima_core.io.atomic import write_bytes
from minima_core.io.depth import write_depth
from minima_core.io.images import encode_jpeg, exif_orientation, read_image
from minima_core.io.paths import inside

INTRINSICS = "camera-intrinsics.txt"
SCANNET_INTRINSICS = "intrinsic/intrinsic_depth.txt"
FRAME = re.compile(r"(frame-\d+)\.(color\.jpg|color\.png|depth\.png|pose\.txt)")
WANTED = "frame-NNNNNN.color.jpg or .png, TUM's rgb.txt with groundtruth.txt, or ScanNet's color and pose"
INVALID = (0, 65535)  # of the sensor's units, "unknown"
RIGID = 5e-3  # how far R R^T may be from I in a text file of few digits; it is made exact below this
SEVEN_SCENES = np.array([[585.0, 0, 320], [0, 585, 240], [0, 0, 1]])  # as its authors say; the files hold none
APART = 0.02  # seconds between a colour frame, its depth and its pose, as TUM's own tools have it
TUM: dict[str, tuple[list[float], list[float]]] = {  # focal lengths and centre; distortion k1 k2 p1 p2 k3
    "freiburg1": ([517.3, 516.5, 318.6, 255.3], [0.2624, -0.9531, -0.0054, 0.0026, 1.1633]),
    "freiburg2": ([520.9, 521.0, 325.1, 249.7], [0.2312, -0.7849, -0.0033, -0.0001, 0.9172]),
    "freiburg3": ([535.4, 539.2, 320.1, 247.6], []),
}
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Frame:
    """One colour image with its depth map and (4, 4) world to camera."""

    stem: str
    colour: Path
    depth: Path
    T_w2c: np.ndarray


@dataclass(frozen=True)
class Sequence:
    """The frames of one folder in order of time, all by one camera.

    Attributes:
        name: unique among the sequences of a root.
        folder: where they lie.
        frames: the frames whose pose is known.
        K: (3, 3) of the depth map's pixels.
        camera: the file that says so, for messages.
        units: of the depth files in a metre.
        distortion: k1, k2, p1, p2, k3 of colour and depth, empty where there is none.
        resize: whether a colour image of another size is resized to the depth map's.
        lost: the images whose depth or pose is not known, by file name.
    """

    name: str
    folder: Path
    frames: list[Frame]
    K: np.ndarray
    camera: Path
    units: float = 1000.0
    distortion: tuple[float, ...] = ()
    resize: bool = False
    lost: tuple[str, ...] = ()


def sequences(root: Path, *, setting: str, every: int = 1) -> list[Sequence]:
    """Return the sequences in ``root`` itself or at any depth below it, every ``every``-th frame of each.

    ``setting`` is how a message says where the root is given.

    Raises:
        DataError: if there is none, one is incomplete, or two would have one name.
    """
    if not root.is_dir():
        raise DataError(f"no folder {root}; {setting}")
    found = find_sequences(root)
    if not found:
        raise DataError(f"no {WANTED} in {root} or a folder in it; {setting}")
    named: dict[str, Path] = {}
    for folder in found:
        if (other := named.setdefault(_name(root, folder), folder)) != folder:
            raise DataError(f"{other} and {folder} would both be called {_name(root, folder)}; rename one of them")
    read = [found[folder](folder, name) for name, folder in named.items()]
    return [replace(sequence, frames=sequence.frames[::every]) for sequence in read]


def find_sequences(root: Path) -> dict[Path, Callable[[Path, str], Sequence]]:
    """Return the folders that hold a sequence, with what reads its layout: ``root`` itself, or those at any depth."""
    if not root.is_dir():
        return {}
    if reader := _reader(root):
        return {root: reader}
    below = sorted(path for path in root.rglob("*") if path.is_dir())
    return {folder: reader for folder in below if (reader := _reader(folder))}


def _reader(folder: Path) -> Callable[[Path, str], Sequence] | None:
    """Return what reads the layout that a folder is in; None if it is in none."""
    readers: dict[Callable[[Path, str], Sequence], bool] = {
        _tum: (folder / "rgb.txt").is_file() and (folder / "groundtruth.txt").is_file(),
        _scannet: (folder / "color").is_dir() and (folder / "pose").is_dir(),
        _plain: any(FRAME.fullmatch(path.name) for path in folder.iterdir()),
    }
    return next((reader for reader, there in readers.items() if there), None)


def _name(root: Path, folder: Path) -> str:
    return "rgbd" if folder == root else f"rgbd-{'-'.join(folder.relative_to(root).parts)}"


def _plain(folder: Path, name: str) -> Sequence:
    matches = [match for match in (FRAME.fullmatch(path.name) for path in folder.iterdir()) if match]
    png = any(match.group(2) == "color.png" for match in matches)
    colour = "color.png" if png else "color.jpg"
    frames = []
    for stem in sorted({match.group(1) for match in matches}):
        for kind in (colour, "depth.png", "pose.txt"):
            if not (folder / f"{stem}.{kind}").is_file():
                raise DataError(
                    f"no {folder / f'{stem}.{kind}'}; add it, or remove the other files of {stem} from the folder"
                )
        pose = read_pose(folder / f"{stem}.pose.txt")
        frames.append(Frame(stem, folder / f"{stem}.{colour}", folder / f"{stem}.depth.png", pose))
    camera = folder / INTRINSICS
    K = SEVEN_SCENES if png and not camera.is_file() else read_intrinsics(camera)
    return Sequence(name, folder, frames, K, camera)


def _tum(folder: Path, name: str) -> Sequence:
    colour, depth, truth = (_timed(folder / f"{file}.txt") for file in ("rgb", "depth", "groundtruth"))
    frames, lost = [], []
    for time, (path, *_) in sorted(colour.items()):
        near = [_nearest(times, time) for times in (depth, truth)]
        if all(abs(one - time) <= APART for one in near):
            pose = _quaternion_pose(truth[near[1]], folder / "groundtruth.txt")
            image, deep = inside(path, folder / "rgb.txt"), inside(depth[near[0]][0], folder / "depth.txt")
            frames.append(Frame(f"{time:.6f}".replace(".", "-"), folder / image, folder / deep, pose))
        else:
            lost.append(path)
    if lost:
        logger.warning("%s: %d of %d images have no depth or pose near their time", folder, len(lost), len(colour))
    if not frames:
        raise DataError(f"no frame in {folder} has depth and pose within {APART} s; check the times in its txt files")
    camera = folder / INTRINSICS
    if camera.is_file():
        return Sequence(name, folder, frames, read_intrinsics(camera), camera, 5000.0, lost=tuple(lost))
    sensor = next((sensor for sensor in TUM if sensor in str(folder.resolve())), "")
    if not sensor:
        raise DataError(
            f"{folder} is of no sensor that is known (freiburg1 to 3); write its 3 x 3 camera into {camera}"
        )
    (fx, fy, cx, cy), distortion = TUM[sensor]
    K = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    return Sequence(name, folder, frames, K, camera, 5000.0, tuple(distortion), lost=tuple(lost))


def _timed(path: Path) -> dict[float, list[str]]:
    """Return the words of each line of a TUM file by its time."""
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
        found = {float(words[0]): words[1:] for words in lines if not words[0].startswith("#")}
    except FileNotFoundError:
        raise DataError(f"no {path}; TUM's sequences have rgb.txt, depth.txt and groundtruth.txt") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} holds no times ({error}); get it again") from None
    if not found or not all(found.values()):
        raise DataError(f"{path} holds times without anything; get it again")
    return found


def _nearest(times: dict[float, list[str]], time: float) -> float:
    known = np.array(list(times))
    return float(known[np.abs(known - time).argmin()])


def _quaternion_pose(words: list[str], path: Path) -> np.ndarray:
    """Return (4, 4) world to camera of ``tx ty tz qx qy qz qw``, camera to world."""
    try:
        x, y, z, *quaternion = (float(word) for word in words)
        R = Rotation.from_quat(quaternion).as_matrix()
    except ValueError as error:
        raise DataError(f"{path} has a line that is no tx ty tz qx qy qz qw ({error}); get it again") from None
    return _inverse(R, np.array([x, y, z]))


def _scannet(folder: Path, name: str) -> Sequence:
    frames, lost = [], []
    for colour in sorted((folder / "color").glob("*.jpg"), key=lambda path: (len(path.stem), path.stem)):
        depth, pose = folder / "depth" / f"{colour.stem}.png", folder / "pose" / f"{colour.stem}.txt"
        for path in (depth, pose):
            if not path.is_file():
                raise DataError(f"no {path}; export the sequence again, or remove {colour}")
        if "inf" in pose.read_text(encoding="utf-8", errors="replace"):  # tracking was lost; ScanNet marks it so
            lost.append(colour.name)
            continue
        stem = f"frame-{colour.stem.zfill(6)}"
        frames.append(Frame(stem, colour, depth, read_pose(pose)))
    if lost:
        logger.warning("%s: %d frames without a pose are left out", folder, len(lost))
    camera = folder / SCANNET_INTRINSICS
    return Sequence(name, folder, frames, read_intrinsics(camera), camera, resize=True, lost=tuple(lost))


def _read_matrix(path: Path, side: int) -> np.ndarray:
    try:
        matrix = np.array([[float(x) for x in line.split()] for line in path.read_text().splitlines() if line.strip()])
    except FileNotFoundError:
        raise DataError(f"no {path}; add it ({side} x {side} numbers)") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not {side} x {side} numbers ({error}); correct it or remove the frame") from None
    if matrix.shape == (4, 4) and side == 3:  # ScanNet's intrinsics
        matrix = matrix[:3, :3]
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
    rigid = float(orthonormality_error(torch.from_numpy(T_c2w[:3, :3]))) < RIGID
    if not rigid or not np.allclose(T_c2w[3], [0, 0, 0, 1], atol=1e-9):
        raise DataError(f"{path} is no rigid motion (rotation, translation, 0 0 0 1); correct it or remove the frame")
    u, _, vt = np.linalg.svd(T_c2w[:3, :3])
    return _inverse(u @ vt, T_c2w[:3, 3])


def _inverse(R: np.ndarray, t: np.ndarray) -> np.ndarray:
    T_w2c = np.eye(4)
    T_w2c[:3, :3] = R.T
    T_w2c[:3, 3] = -R.T @ t
    return T_w2c


def bring(job: tuple[Sequence, Frame, Path, str]) -> None:
    """Convert one frame, unless an earlier run did: a JPEG beside depth in metres, both without distortion.

    Raises:
        DataError: naming the file that cannot be read, or does not fit the others.
    """
    sequence, frame, root, scene = job
    target = root / image_path(scene, frame.stem)
    if target.is_file():  # written last
        return
    depth = cv2.imread(str(frame.depth), cv2.IMREAD_UNCHANGED)
    if depth is None or depth.dtype != np.uint16 or depth.ndim != 2:
        raise DataError(f"{frame.depth} is no 16-bit gray PNG; replace it or remove the three files of {frame.stem}")
    size = (depth.shape[1], depth.shape[0])
    if exif_orientation(frame.colour) != 1:
        raise DataError(
            f"the EXIF of {frame.colour} turns it, which depth and camera do not know; drop that with `exiftool "
            "-Orientation=`"
        )
    image = read_image(frame.colour)
    given = (image.shape[1], image.shape[0])
    if given != size and not sequence.resize:
        raise DataError(
            f"{frame.depth} is {size[0]} x {size[1]}, {frame.colour.name} {given[0]} x {given[1]}; the two must be "
            "registered"
        )
    cx, cy = sequence.K[:2, 2]
    if not (0 <= cx <= size[0] and 0 <= cy <= size[1]):
        raise DataError(
            f"{sequence.camera} puts the principal point at ({cx:g}, {cy:g}), outside {size[0]} x {size[1]} pixels"
        )
    metres: np.ndarray = np.where(np.isin(depth, INVALID), 0, depth / sequence.units).astype(np.float32)
    if given != size:  # as LoFTR does with ScanNet, and the depth map's camera is taken for both
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    if sequence.distortion:
        maps = cv2.initUndistortRectifyMap(
            sequence.K, np.array(sequence.distortion), np.eye(3), sequence.K, size, cv2.CV_32FC1
        )
        image = cv2.remap(image, *maps, cv2.INTER_LINEAR)
        metres = cv2.remap(metres, *maps, cv2.INTER_NEAREST)
    write_depth(root / depth_path(scene, frame.stem), metres)
    as_it_is = frame.colour.suffix == ".jpg" and given == size and not sequence.distortion
    write_bytes(target, frame.colour.read_bytes() if as_it_is else encode_jpeg(image))
