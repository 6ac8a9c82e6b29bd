"""Pairs of the user's own: a list of images, and of each pair landmarks that somebody set, or the homography."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated, ClassVar, Self

import cv2
import numpy as np
import torch
from pydantic import Field, FiniteFloat, model_validator

from minima_core.config import Section, checked
from minima_core.errors import DataError
from minima_core.evaluation.benchmarks._files import ImageFile, about_images
from minima_core.evaluation.benchmarks.base import Benchmark, PairList, PairTruth, Task, as_matrix
from minima_core.geometry.homography import corners, warp_homography
from minima_core.io.paths import inside

logger = logging.getLogger(__name__)
LIST = "own_pairs.json"
LEAST = 4  # landmarks that a homography goes through
FAR = 3.0  # pixels, the least that is scored
FLAT = 1e-12  # determinant of a homography that takes a picture to a line
Row = Annotated[list[FiniteFloat], Field(min_length=3, max_length=3)]
Landmark = Annotated[list[FiniteFloat], Field(min_length=4, max_length=4)]  # x and y in image 0, x and y in image 1


class Entry(Section):
    """One pair of the list; paths start from the list's folder, pixels from the centre of the top left one."""

    image0: str
    image1: str
    category: Annotated[str, Field(min_length=1)] = "pairs"  # what it is counted under
    landmarks: Annotated[list[Landmark], Field(min_length=LEAST)] | None = None
    H_0to1: Annotated[list[Row], Field(min_length=3, max_length=3)] | None = None

    @model_validator(mode="after")
    def _one_truth(self) -> Self:
        if (self.landmarks is None) == (self.H_0to1 is None):
            raise ValueError("a pair has either landmarks or H_0to1 (of aligned images [[1,0,0],[0,1,0],[0,0,1]])")
        return self


class OwnPairs(Benchmark):
    """Pairs of ``own_pairs.json``; images are read where they lie."""

    class Params(Benchmark.Params):
        """Settings, ``benchmark.own_pairs`` in params.yaml."""

        root: Path  # the folder that holds own_pairs.json

    licence: ClassVar[str] = "unknown (pairs of the user's own)"
    task: ClassVar[Task] = "homography"
    params: Params

    def absent(self) -> str:
        """Say that there is no list."""
        path = self.params.root / LIST
        return "" if path.is_file() else f"no {path}; write it as docs/evaluation.md shows"

    def _prepare(self, folder: Path, scratch: Path, workers: int) -> PairList:  # noqa: ARG002 - nothing to write
        path = self.params.root / LIST
        entries: dict[str, list[Entry]] = {}
        for entry in read_list(path):
            entries.setdefault(entry.category, []).append(entry)
        kept = [entry for some in entries.values() for entry in self.params.some(some)]
        names = [inside(image, path) for entry in kept for image in (entry.image0, entry.image1)]
        about = about_images(self.params.root, names, workers=workers, what="own_pairs")
        found = [_truth(entry, about) for entry in kept]
        return PairList(
            task=self.task,
            protocol="",
            root=str(self.params.root),
            headline=list(entries),
            groups={},
            pairs=[pair for pair, _ in found],
            floor={pair.name: off for pair, off in found if off is not None},
        )


def read_list(path: Path) -> list[Entry]:
    """Return the pairs of a list.

    Raises:
        DataError: if it is no JSON, or no list.
        ConfigError: naming the pair, counted from 0, and what is wrong with it.
    """
    try:
        listed = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(listed, list) or not listed:
            raise ValueError("it is no list of pairs, or an empty one")
    except (OSError, ValueError, RecursionError) as error:  # the last of brackets in brackets
        raise DataError(f"cannot read {path}: {error}; write it as docs/evaluation.md shows") from None
    return [checked(entry, Entry, f"{path}: pair {n}") for n, entry in enumerate(listed)]


def _truth(entry: Entry, about: dict[str, ImageFile]) -> tuple[PairTruth, float | None]:
    """Return a pair, and how far its landmarks are from its homography where there are more than that goes through."""
    name = f"{entry.category}/{entry.image0}-{entry.image1}"
    first, second = about[inside(entry.image0, Path(LIST))], about[inside(entry.image1, Path(LIST))]
    H, off = np.array(entry.H_0to1 or np.eye(3)), None
    if entry.landmarks is not None:
        H, off = _fitted(name, np.array(entry.landmarks), first.size, second.size)
    H = H / (H[2, 2] or 1.0)
    shown = bool(warp_homography(torch.from_numpy(H), corners(first.size)).isfinite().all())
    if not shown or abs(np.linalg.det(H)) < FLAT:
        raise DataError(
            f"pair {name} of {LIST}: its homography makes a line of image 0, or takes a corner of it to infinity; "
            f"mend it, or set landmarks all over the images"
        )
    return PairTruth(
        name=name,
        category=entry.category,
        image0=entry.image0,
        image1=entry.image1,
        sha0=first.sha256,
        sha1=second.sha256,
        size0=first.size,
        size1=second.size,
        H_0to1=as_matrix(H),
    ), off


def _fitted(
    name: str, marks: np.ndarray, size0: tuple[int, int], size1: tuple[int, int]
) -> tuple[np.ndarray, float | None]:
    """Return the homography with the least squares over (N, 4) landmarks, and their median distance to it in pixels."""
    outside = ((marks < -0.5) | (marks > np.array([*size0, *size1]) - 0.5)).any(axis=1)
    if outside.any():
        n = int(outside.argmax())
        raise DataError(
            f"pair {name} of {LIST}: landmark {n}, {marks[n].tolist()}, is outside its images of "
            f"{size0[0]} x {size0[1]} and {size1[0]} x {size1[1]} pixels; it is x and y in image 0, x and y in image 1"
        )
    H, _ = cv2.findHomography(marks[:, :2], marks[:, 2:])
    if H is None:
        raise DataError(f"pair {name} of {LIST}: no homography goes through its landmarks; set them off one line")
    points0, points1 = torch.from_numpy(marks[:, :2]), torch.from_numpy(marks[:, 2:])
    distance = (warp_homography(torch.from_numpy(H), points0) - points1).norm(dim=-1)
    if bool(distance.max() > FAR):
        logger.warning("%s: landmark %d is %.1f px from the homography", name, int(distance.argmax()), distance.max())
    return H, float(distance.median()) if len(marks) > LEAST else None
