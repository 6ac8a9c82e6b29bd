"""RGB against RGB on a real sequence with poses: what a matcher that was fine-tuned for other sensors has kept."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from minima_core.config import digest
from minima_core.data.datasets._frames import WANTED, find_sequences
from minima_core.data.datasets.rgbd import Rgbd
from minima_core.evaluation.benchmarks._posed import PosedPair, relative_pose, truths
from minima_core.evaluation.benchmarks.base import Benchmark, PairList, Task
from minima_core.io.atomic import atomic_path


class RgbRetention(Benchmark):
    """Pairs of the last frames of each sequence, which ``dataset.rgbd`` keeps out of training; each is a category."""

    class Params(Benchmark.Params):
        """Settings, ``benchmark.rgb_retention`` in params.yaml."""

        root: Path  # one sequence, or folders that each hold one, as for dataset.rgbd
        share: float = Field(gt=0, lt=1)  # of a sequence's frames, its last ones
        overlap: tuple[float, float]  # a pair's overlap lies in (low, high]
        pairs: int = Field(ge=1)  # a sequence, spread evenly over the overlaps
        seed: int

    licence: ClassVar[str] = "unknown: that of the frames in benchmark.rgb_retention.root"
    task: ClassVar[Task] = "pose"
    params: Params

    def absent(self) -> str:
        """Say what is missing."""
        if find_sequences(self.params.root):
            return ""
        return f"no {WANTED} in {self.params.root}; bring a sequence there"

    def _prepare(self, folder: Path, scratch: Path, workers: int) -> PairList:
        p = self.params
        frames = Rgbd(
            Rgbd.Params(
                root=str(p.root), licence="", validation_share=p.share, gap=0, overlap=p.overlap, max_pairs=p.pairs
            ),
            seed=p.seed,
        )
        raw = scratch / digest([frames.params.model_dump(), frames.source()])[:16]
        frames.prepare(raw, workers=workers)
        shutil.rmtree(folder / "images", ignore_errors=True)  # of a killed run, perhaps on other frames
        pairs = []
        for scene in frames.scenes(raw):
            if scene.split != "val":
                continue
            for i, j in p.some(scene.pairs.tolist()):
                image0, image1 = (_copied(raw / scene.image[k], folder, scene.name) for k in (i, j))
                name = f"{scene.name}/{Path(image0).stem}-{Path(image1).stem}"
                T_0to1 = relative_pose(scene.T_w2c[i], scene.T_w2c[j])
                pairs.append(PosedPair(name, scene.name, image0, image1, scene.K[i], scene.K[j], T_0to1))
        shutil.rmtree(raw)
        return PairList(
            task=self.task,
            protocol="",
            headline=sorted({pair.category for pair in pairs}),
            groups={},
            pairs=truths(folder, pairs, workers=workers, what="rgb_retention"),
        )


def _copied(source: Path, folder: Path, scene: str) -> str:
    """Return where a copy of ``source`` lies in ``folder``."""
    name = f"images/{scene}/{source.name}"
    if not (folder / name).is_file():
        with atomic_path(folder / name) as temporary:
            shutil.copyfile(source, temporary)
    return name
