"""What DIODE and DSEC share: aligned images of two kinds, one of them warped by a homography of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from minima_core.evaluation.benchmarks.base import PairList, PairTruth, as_matrix
from minima_core.evaluation.benchmarks.mmim_warped import warp
from minima_core.geometry.homography_sampler import published_homography, sample_homography
from minima_core.io.images import write_image
from minima_core.manifest import file_sha256
from minima_core.parallel import map_jobs
from minima_core.random import rng

SIZE = (640, 480)  # of all images (spec/evaluation.md section 4.1)
SEED = 0  # of homographies that go by names; no setting, since all who score by one protocol must see the same pairs


@dataclass(frozen=True)
class Source:
    """One image: a file, how it is read as (H, W, 3) uint8, and the path by which the published script knows it."""

    file: Path
    read: Callable[[Path], np.ndarray]
    path: str


@dataclass(frozen=True)
class _Job:
    name: str
    category: str
    image0: Source
    image1: Source
    warped: Literal[0, 1]
    folder: Path
    published: bool


def both_orders(
    named: Sequence[tuple[str, Source, Source]],
    categories: tuple[str, str],
    *,
    warped: Literal[0, 1],
    folder: Path,
    workers: int,
    what: str,
    protocol: str,
) -> PairList:
    """Write the images of aligned pairs in both orders and return the pairs.

    By ``minima-v1`` the homography goes by the path of image 0 in the published scripts, whichever image is
    ``warped``; by any other protocol by the pair's name.

    Args:
        named: name, first and second image of each aligned pair.
        categories: of the pairs in this order, and of those in the other.
        warped: which image is warped: 1 for DIODE, 0 for DSEC.
        folder: of the benchmark; images go below ``images``.
        workers: processes.
        what: the benchmark's name, for the bar.
        protocol: whose homographies are drawn.

    Raises:
        DataError: naming the file that cannot be used.
    """
    jobs = [
        _Job(f"{category}/{name}", category, *images, warped, folder, published=protocol == "minima-v1")
        for name, first, second in named
        for category, images in zip(categories, ((first, second), (second, first)), strict=True)
    ]
    pairs = map_jobs(_make, jobs, workers=workers, what=f"pairs of {what}")
    return PairList(task="homography", protocol=protocol, headline=list(categories), groups={}, pairs=pairs)


def _make(job: _Job) -> PairTruth:
    H = published_homography(SIZE, job.image0.path) if job.published else sample_homography(SIZE, rng(SEED, job.name))
    names = [f"images/{job.name}-{side}.png" for side in (0, 1)]
    for side, (name, source) in enumerate(zip(names, (job.image0, job.image1), strict=True)):
        image = cv2.resize(source.read(source.file), SIZE, interpolation=cv2.INTER_LINEAR)
        write_image(job.folder / name, warp(image, H) if side == job.warped else image)
    H_0to1 = H if job.warped == 1 else np.linalg.inv(H)
    return PairTruth(
        name=job.name,
        category=job.category,
        image0=names[0],
        image1=names[1],
        sha0=file_sha256(job.folder / names[0]),
        sha1=file_sha256(job.folder / names[1]),
        size0=SIZE,
        size1=SIZE,
        H_0to1=as_matrix(H_0to1 / H_0to1[2, 2]),
    )
