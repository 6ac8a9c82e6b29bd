"""MegaDepth-1500: photographs of two places by LoFTR's pairs, the measure of what a matcher is on RGB alone."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from minima_core.evaluation.benchmarks import _megadepth
from minima_core.evaluation.benchmarks._posed import truths
from minima_core.evaluation.benchmarks.base import Benchmark, PairList, PairTruth, Task


class MegaDepth1500(Benchmark):
    """1500 pairs with relative poses; images are read where they lie."""

    class Params(_megadepth.Where):
        """Settings, ``benchmark.megadepth_1500`` in params.yaml."""

    licence: ClassVar[str] = "images: MegaDepth (photographs of Flickr, each under terms of its own); pairs: Apache-2.0"
    task: ClassVar[Task] = "pose"
    params: Params

    def absent(self) -> str:
        """Say what is missing."""
        return _megadepth.absent(self.params)

    def _prepare(self, folder: Path, scratch: Path, workers: int) -> PairList:  # noqa: ARG002 - nothing to write
        p = self.params
        root, parts = _megadepth.image_root(p.root), _megadepth.parts(p)
        pairs = [pair for part in parts for pair in p.some(list(_megadepth.read_part(p.index, part)))]
        return PairList(
            task=self.task,
            protocol="",
            root=str(root),
            headline=parts,
            groups={},
            pairs=truths(root, pairs, workers=workers, what="megadepth_1500"),
        )

    @staticmethod
    def place(truth: PairTruth) -> str:
        """The scene."""
        return _megadepth.scene(truth.category)
