"""DSEC, the subset of MINIMA: frames against pictures of events, aligned, the first image warped."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import ClassVar

from minima_core.errors import DataError
from minima_core.evaluation.benchmarks._aligned import Source, both_orders
from minima_core.evaluation.benchmarks._files import read_lines
from minima_core.evaluation.benchmarks.base import Benchmark, PairList, Task
from minima_core.io.images import read_image
from minima_core.io.paths import inside

logger = logging.getLogger(__name__)
UPSTREAM = "./data/DSEC"
LISTS = ("event_list.txt", "vent_list.txt")  # the second as the published README prints it


class Dsec(Benchmark):
    """Every frame twice: (frame, events) and (events, frame)."""

    class Params(Benchmark.Params):
        """Settings, ``benchmark.dsec`` in params.yaml."""

        root: Path  # the folder that holds event_list.txt

    licence: ClassVar[str] = "CC-BY-SA-4.0"
    task: ClassVar[Task] = "homography"
    params: Params

    def absent(self) -> str:
        """Say what is missing."""
        if any((self.params.root / name).is_file() for name in LISTS):
            return ""
        return f"no {LISTS[0]} in {self.params.root}; `minima download dsec_subset --out {self.params.root}`"

    def _prepare(self, folder: Path, scratch: Path, workers: int) -> PairList:  # noqa: ARG002 - written to folder
        root = self.params.root
        path = next(root / name for name in LISTS if (root / name).is_file())
        frames = [inside(line.removeprefix("./"), path) for line in read_lines(path)]
        there = [frame for frame in frames if (root / frame).is_file() and (root / _events(frame)).is_file()]
        if not there:
            raise DataError(f"{path} names no frame that is there with its events; bring the images beside it")
        if len(there) < len(frames):
            logger.warning(
                "%d of the %d frames in %s lack a file and are left out", len(frames) - len(there), len(frames), path
            )
        named = [
            (frame.removesuffix(Path(frame).suffix), _source(root, frame), _source(root, _events(frame)))
            for frame in self.params.some(there)
        ]
        categories = "rgb-event", "event-rgb"
        return both_orders(
            named, categories, warped=0, folder=folder, workers=workers, what="dsec", protocol=self.protocol
        )


def _events(frame: str) -> str:
    return frame.replace("images", "events")


def _source(root: Path, path: str) -> Source:
    return Source(root / path, read_image, f"{UPSTREAM}/{path}")
