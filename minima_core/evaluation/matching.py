"""The first pass of an evaluation: every pair of a benchmark matched, into one file; killed anywhere, it continues."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import cv2
import numpy as np
import torch

from minima_core import licences
from minima_core.config import digest
from minima_core.evaluation.benchmarks.base import PairTruth, Prepared
from minima_core.evaluation.predictions import Origin, Predictions, collect, read_predictions
from minima_core.evaluation.protocol import Matching
from minima_core.evaluation.protocol import Protocol as EvaluationProtocol
from minima_core.io.images import to_tensor
from minima_core.manifest import seal, sealed
from minima_core.progress import track
from minima_core.types import Matches

PART = 16  # pairs a part: what a killed run loses at most, a few seconds
Scale = tuple[float, float]  # x and y
KEPT_FEATURES = 160  # images whose features are kept in memory; the worst are the images themselves, 4 MB each


class MatchesImages(Protocol):
    """What can be evaluated; ``sparse`` says that it matches keypoints, ``reads_gray``, if there, that it sees gray."""

    sparse: ClassVar[bool]

    def match(
        self,
        image0: torch.Tensor,
        image1: torch.Tensor,
        *,
        max_keypoints: int | None = None,
        long_side: int | None = None,
    ) -> Matches:
        """Match two (3, H, W) images; original pixels."""


@runtime_checkable
class ReusesFeatures(Protocol):
    """A matcher whose work on one image does not depend on the other one."""

    def extract(self, image: torch.Tensor, *, max_keypoints: int | None = None, long_side: int | None = None) -> Any:
        """Return what ``match_features`` needs of a (3, H, W) image."""

    def match_features(self, features0: Any, features1: Any) -> Matches:
        """Match what ``extract`` returned for two images; equal to ``match`` on them."""


@dataclass(frozen=True)
class MatchRun:
    """Predictions on disk, and how long this process took for those pairs that no earlier run had matched."""

    predictions: Predictions
    matched: int
    seconds: float

    @property
    def seconds_per_pair(self) -> float:
        """Wall time over pairs matched now; 0 where there were none."""
        return self.seconds / self.matched if self.matched else 0.0


def match_benchmark(
    matcher: MatchesImages,
    benchmark: Path,
    protocol: EvaluationProtocol,
    out: Path,
    *,
    model: str,
    licence: str,
    scratch: Path,
    workers: int = 1,
) -> MatchRun:
    """Match all pairs of a prepared ``benchmark`` folder and write ``out/predictions.h5``.

    Finished parts wait in ``scratch``, under a key of everything that decides the result, and are gone when the file is
    whole. Each pair is matched on one thread, so that the file is the same for any number of ``workers``.

    Args:
        matcher: with its weights, on its device.
        benchmark: folder that ``Benchmark.prepare`` made.
        protocol: its matching part decides how images are given to the matcher.
        out: folder for the file.
        model: digest of the model's card.
        licence: of the model.
        scratch: folder for unfinished work; it may be shared with other benchmarks.
        workers: threads; 1 on a GPU.

    Raises:
        DataError: naming the image that is missing, damaged or not the one the benchmark was prepared with.
    """
    prepared = Prepared(benchmark)
    prepared.check_protocol(protocol.name)
    manifest, truths = prepared.manifest, prepared.list.pairs
    origin = Origin(
        manifest.benchmark,
        manifest.data_digest,
        model,
        protocol.name,
        digest(protocol.matching),
        licences.join([licence, manifest.licence]),
        manifest.skipped,
    )
    parts = scratch / digest([origin.benchmark_digest, model, origin.matching_digest])[:16]
    batches = [truths[start : start + PART] for start in range(0, len(truths), PART)]
    done: dict[int, Predictions] = {i: part for i in range(len(batches)) if (part := _part(parts / str(i), origin))}
    started = time.monotonic()
    worker = _Worker(matcher, prepared, protocol.matching)
    todo = [i for i in range(len(batches)) if i not in done]
    with _one_thread_each(), _whole_float32(), ThreadPoolExecutor(workers) as pool:
        for i in track(todo, f"match {manifest.benchmark} (parts of {PART})", total=len(batches), done=len(done)):
            found = list(pool.map(worker, batches[i]))
            done[i] = collect(origin, [truth.name for truth in batches[i]], found)
            seal(done[i].save(parts / str(i)))
    whole = collect(origin, [t.name for t in truths], [m for i in range(len(batches)) for m in done[i]])
    seconds = time.monotonic() - started
    whole.save(out)
    shutil.rmtree(parts, ignore_errors=True)
    with suppress(OSError):  # other benchmarks may have parts beside ours
        scratch.rmdir()
    return MatchRun(whole, sum(len(batches[i]) for i in todo), seconds)


def _part(folder: Path, origin: Origin) -> Predictions | None:
    """Return a finished part of the same origin; None where there is none, or not as it was written."""
    part = read_predictions(folder) if sealed(folder / Predictions.FILE) else None
    return part if part and part.origin == origin else None


class _Worker:
    """Matches one pair; features are shared between the pairs of an image where the matcher allows it."""

    def __init__(self, matcher: MatchesImages, prepared: Prepared, settings: Matching) -> None:
        self.matcher = matcher
        self.prepared = prepared
        self.settings = settings
        matched_at = (settings.sparse_long_side if matcher.sparse else None) or settings.long_side
        self.how = {"max_keypoints": settings.max_keypoints, "long_side": matched_at}
        self.read_at = matched_at if settings.resize == "upstream_once" else settings.long_side
        self.gray = bool(getattr(matcher, "reads_gray", False))  # as the published scripts read files for it
        self.features: dict[str, tuple[Any, Scale]] = {}
        self.lock = threading.Lock()

    def __call__(self, truth: PairTruth) -> Matches:
        views = (truth.image0, truth.sha0), (truth.image1, truth.sha1)
        if isinstance(self.matcher, ReusesFeatures):
            (found0, scale0), (found1, scale1) = (self._features(self.matcher, *view) for view in views)
            matches = self.matcher.match_features(found0, found1)
        else:
            (image0, scale0), (image1, scale1) = (self._image(*view) for view in views)
            matches = self.matcher.match(image0, image1, **self.how)
        return Matches(matches.mkpts0 * torch.tensor(scale0), matches.mkpts1 * torch.tensor(scale1), matches.scores)

    def _image(self, reference: str, sha256: str) -> tuple[torch.Tensor, Scale]:
        """Return an image as the matcher gets it, and the factors that take its matches back to the file's pixels."""
        if self.settings.resize == "antialiased":
            return to_tensor(self.prepared.image(reference, sha256)), (1.0, 1.0)
        return resize_upstream(self.prepared.image(reference, sha256, gray=self.gray), self.read_at)

    def _features(self, matcher: ReusesFeatures, reference: str, sha256: str) -> tuple[Any, Scale]:
        if (kept := self.features.get(reference)) is not None:
            return kept
        image, scale = self._image(reference, sha256)
        features = matcher.extract(image, **self.how), scale
        with self.lock:
            while len(self.features) >= KEPT_FEATURES:
                self.features.pop(next(iter(self.features)))  # the oldest
            self.features[reference] = features
        return features


def resize_upstream(image: np.ndarray, long_side: int) -> tuple[torch.Tensor, Scale]:
    """Resize an (H, W, 3) uint8 image as the published evaluation does; spec/evaluation.md section 2.

    Returns:
        The (3, H', W') float32 image, and the factors (W / W', H / H') by which its pixels are multiplied to give those
        of the original: without the half pixel, as published.
    """
    h, w = image.shape[:2]
    factor = long_side / max(h, w)
    new_w, new_h = (max(round(side * factor) // 8, 1) * 8 for side in (w, h))
    small = cv2.resize(image, (new_w, new_h), interpolation=cv2.INTER_LINEAR)
    return to_tensor(small), (w / new_w, h / new_h)


@contextmanager
def _whole_float32() -> Iterator[None]:
    """Let convolutions on a GPU keep all 23 bits of their float32; by default cuDNN rounds what they take to 10."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let torch work on one thread a call: sums then have one order, whatever machine or number of workers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
