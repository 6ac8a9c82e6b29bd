"""MMIM with each moving image seen from elsewhere: a quarter of its pairs are aligned as they come."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field

from minima_core.evaluation.benchmarks.base import PairList, PairTruth, as_matrix
from minima_core.evaluation.benchmarks.mmim import Mmim
from minima_core.geometry.homography_sampler import sample_homography
from minima_core.io.atomic import atomic_path
from minima_core.io.images import read_image, write_image
from minima_core.manifest import file_sha256
from minima_core.parallel import map_jobs
from minima_core.random import rng


class MmimWarped(Mmim):
    """Every pair of ``mmim`` several times, its moving image warped by a homography of its own (zeros outside).

    The homography depends on the seed, the pair's name and its number alone, wherever the data lie.
    """

    class Params(Mmim.Params):
        """Where the data are, and what is drawn."""

        warps: int = Field(ge=1)  # of each pair
        seed: int

    licence: ClassVar[str] = f"{Mmim.licence}; moving images warped"
    params: Params

    def _prepare(self, folder: Path, scratch: Path, workers: int) -> PairList:
        real = super()._prepare(folder, scratch, workers)
        jobs = [
            job
            for _, truths in groupby(real.pairs, key=lambda truth: truth.category)
            for job in self.params.some(
                [
                    _Job(truth, number, self.params.seed, self.root, folder)
                    for truth in truths
                    for number in range(self.params.warps)
                ]
            )
        ]
        pairs = map_jobs(_make, jobs, workers=workers, what="warped pairs")
        floor = {
            pair.name: found for pair in pairs if (found := real.floor.get(pair.name.rpartition("-")[0])) is not None
        }
        return real.model_copy(update={"root": "", "pairs": pairs, "floor": floor})

    @staticmethod
    def place(truth: PairTruth) -> str:
        """That of the pair as it comes."""
        return Mmim.place(truth) and truth.name.rpartition("-")[0]


@dataclass(frozen=True)
class _Job:
    """One warped pair to make."""

    truth: PairTruth
    number: int
    seed: int
    root: Path  # of the real images
    folder: Path  # for the warped ones, and the fixed ones beside them


def _make(job: _Job) -> PairTruth:
    """Write the images of one pair and return it; every pair has its own copy of the fixed image."""
    truth, name = job.truth, f"{job.truth.name}-{job.number}"
    moving = f"images/{name}-moving.png"
    fixed = f"images/{name}-fixed{Path(truth.image1).suffix}"
    H = sample_homography(truth.size0, rng(job.seed, truth.name, job.number))
    write_image(job.folder / moving, warp(read_image(job.root / truth.image0), H))
    with atomic_path(job.folder / fixed) as temporary:
        shutil.copyfile(job.root / truth.image1, temporary)
    H_0to1 = truth.tensor("H_0to1").numpy() @ np.linalg.inv(H)
    return truth.model_copy(
        update={
            "name": name,
            "image0": moving,
            "image1": fixed,
            "sha0": file_sha256(job.folder / moving),
            "H_0to1": as_matrix(H_0to1 / H_0to1[2, 2]),
        }
    )


def warp(image: np.ndarray, H: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8 with what was at x at H x, of the same size, bilinear and black outside."""
    from kornia.geometry.transform import warp_perspective

    source = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    warped = warp_perspective(source, torch.from_numpy(H)[None], image.shape[:2], align_corners=True)
    return warped[0].permute(1, 2, 0).round().clamp(0, 255).byte().numpy()
