"""MMIM: real medical and remote-sensing pairs with hand-made homographies, read where they lie."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from minima_core.errors import DataError
from minima_core.evaluation.benchmarks.base import Benchmark, PairList, PairTruth, Task, as_matrix
from minima_core.geometry.homography import warp_homography
from minima_core.io.images import read_image
from minima_core.io.paths import inside
from minima_core.manifest import file_sha256

logger = logging.getLogger(__name__)
INNER = "Multimodal_Image_Matching_Datasets"
LIST = "list.json"
# The benchmark's categories (spec/datasets.md 7.5); what they hold differs between copies of the data.
GROUPS = {
    "Medical": ("Retina", "PD_T1", "PD_T2", "T1_T2", "MR_PET", "SPECT_CT"),
    "RemoteSensing": (
        "SAR_Optical",
        "CrossSeason",
        "DayNight",
        "DepthOptical",
        "Infrared_Optical",
        "Map_Optical",
        "Optical_Optical",
    ),
    "ComputerVision": ("VIS_IR",),
}
BESIDE = "ComputerVision"  # not part of the published figures
# Where pairs show, or may show, what another one shows: a head in slices, an eye again, one campus, one river.
SHARED = ("Medical", "RemoteSensing/DepthOptical", "RemoteSensing/Infrared_Optical")


class Mmim(Benchmark):
    """Pairs (moving, fixed) with H from moving to fixed; nothing is copied, files are known by their sha256."""

    class Params(Benchmark.Params):
        """Where the data are."""

        root: Path  # the folder Multimodal_Image_Matching_Datasets, or the one that holds it

    licence: ClassVar[str] = (
        "none stated (StaRainJ/Multi-modality-image-matching-database-metrics-methods): evaluation only"
    )
    task: ClassVar[Task] = "homography"
    params: Params

    @property
    def root(self) -> Path:
        """The folder that holds Medical and RemoteSensing."""
        inner = self.params.root / INNER
        return inner if inner.is_dir() else self.params.root

    def absent(self) -> str:
        """Say what is missing where there is no category with a list."""
        if any(True for _ in categories(self.root)):
            return ""
        return f"no {LIST} of a category in {self.root}; put Multimodal_Image_Matching_Datasets there"

    def _prepare(self, folder: Path, scratch: Path, workers: int) -> PairList:  # noqa: ARG002 - nothing to write
        found = list(categories(self.root))
        missing = [c for g, names in GROUPS.items() for n in names if g != BESIDE and (c := f"{g}/{n}") not in found]
        if missing:
            logger.warning("mmim at %s lacks %s; averages are over the others", self.root, ", ".join(missing))
        pairs = [
            read_pair(self.root, category, *files)
            for category in found
            for files in self.params.some(read_list(self.root, category))
        ]
        groups = {group: [c for c in found if c.startswith(f"{group}/")] for group in GROUPS}
        return PairList(
            task=self.task,
            protocol="",
            root=str(self.root),
            headline=[c for c in found if not c.startswith(BESIDE)],
            groups={group: names for group, names in groups.items() if names},
            pairs=pairs,
            floor={pair.name: off for pair in pairs if (off := residual(self.root, pair)) is not None},
        )

    @staticmethod
    def place(truth: PairTruth) -> str:
        """The pair: each has a place of its own, but for some categories; looked at on the 64 pairs at hand."""
        return "" if truth.category.startswith(SHARED) else truth.name

    @staticmethod
    def sensor(reference: str) -> str:
        """The category, whose fixed images are of one kind."""
        return reference.rpartition("/")[0]


def categories(root: Path) -> Iterator[str]:
    """Yield ``group/category`` for each known category that has a list under ``root``."""
    for group, names in GROUPS.items():
        for name in names:
            if (root / group / name / LIST).is_file():
                yield f"{group}/{name}"


def read_list(root: Path, category: str) -> list[tuple[str, str, str]]:
    """Return the mat file, fixed and moving image of each pair of a category, in the order of their group numbers.

    Raises:
        DataError: naming the list if it is none.
    """
    path = root / category / LIST
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        entries = sorted((len(key), key, [str(f) for f in files]) for key, files in listed.items())
        if not entries or any(len(files) != 3 for _, _, files in entries):
            raise ValueError("every group must name a mat file, a fixed and a moving image")
    except (OSError, ValueError, AttributeError, TypeError, RecursionError) as error:
        raise DataError(f"{path} is not a list of pairs ({error}); restore it from the database") from None
    return [(mat, fixed, moving) for _, _, (mat, fixed, moving) in entries]


def read_pair(root: Path, category: str, mat: str, fixed: str, moving: str) -> PairTruth:
    """Return one pair: image 0 is the moving image, image 1 the fixed one.

    Raises:
        DataError: naming the mat file or image that cannot be used.
    """
    mat, moving, fixed = (inside(name, root / category / LIST) for name in (mat, moving, fixed))
    H, expected = read_mat(root / category / mat)
    files = {"I_move": f"{category}/{moving}", "I_fix": f"{category}/{fixed}"}
    sizes: dict[str, tuple[int, int]] = {}
    for key, file in files.items():
        h, w = read_image(root / file).shape[:2]
        if (w, h) != expected[key]:
            raise DataError(f"{root / file} has {w} x {h} pixels but {mat} is about {expected[key]}; restore the pair")
        sizes[key] = (w, h)
    return PairTruth(
        name=f"{category}/{Path(mat).stem}",
        category=category,
        image0=files["I_move"],
        image1=files["I_fix"],
        sha0=file_sha256(root / files["I_move"]),
        sha1=file_sha256(root / files["I_fix"]),
        size0=sizes["I_move"],
        size1=sizes["I_fix"],
        H_0to1=as_matrix(H),
    )


def read_mat(path: Path) -> tuple[np.ndarray, dict[str, tuple[int, int]]]:
    """Return H (3, 3) from moving to fixed, and the (width, height) that both images must have.

    Raises:
        DataError: if the file is missing, damaged or holds no homography.
    """
    import scipy.io

    if not path.is_file():
        raise DataError(f"no file {path}, which its {LIST} names; restore it from the database")
    try:
        shapes = {name: shape for name, shape, _ in scipy.io.whosmat(path)}
        if shapes["T"] != (3, 3):  # said before it is read, which may take any amount of memory
            raise ValueError(f"T is {shapes['T']}, not 3 x 3")
        T = np.asarray(scipy.io.loadmat(path, variable_names=["T"])["T"], dtype=np.float64)
        sizes = {key: (int(shapes[key][1]), int(shapes[key][0])) for key in ("I_fix", "I_move")}
    except Exception as error:  # scipy's reader meets damaged bytes with whatever error comes first
        raise DataError(f"cannot read {path} ({type(error).__name__}: {error}); restore it from the database") from None
    if T.shape != (3, 3) or not np.isfinite(T).all() or abs(np.linalg.det(T)) < 1e-12 or T[2, 2] == 0:
        raise DataError(f"T in {path} is no homography; restore it from the database")
    return from_matlab(T), sizes


def residual(root: Path, pair: PairTruth) -> float | None:
    """Return how far H is from the landmarks that people set in both images: the median in pixels of the fixed one.

    No method can be told from the truth below this. None where the mat file holds no landmarks.
    """
    import scipy.io

    try:
        mat = scipy.io.loadmat(root / f"{pair.name}.mat", variable_names=["Landmarks"])
        marks = mat["Landmarks"][0, 0]
        moving, fixed = (torch.from_numpy(np.asarray(marks[key], np.float64)) - 1 for key in ("LMmov", "LMfix"))
    except Exception:  # scipy's reader meets damaged bytes with whatever error comes first; H itself was read
        return None
    distance = (warp_homography(pair.tensor("H_0to1"), moving) - fixed).norm(dim=-1)
    return float(distance.median()) if len(distance) else None


def from_matlab(T: np.ndarray) -> np.ndarray:
    """Return H for columns and 0-based pixels from MATLAB's T for rows, [x y 1] T, and 1-based ones."""
    S = np.array([[1.0, 0, -1], [0, 1, -1], [0, 0, 1]])  # 1-based to 0-based
    H = S @ T.T @ np.linalg.inv(S)
    return H / H[2, 2]
