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
from typing import Any, Protocol, runtime_checkable

import torch

from minima_core import licences
from minima_core.config import digest
from minima_core.errors import DataError
from minima_core.evaluation.benchmarks.base import PairTruth, Prepared
from minima_core.evaluation.predictions import Origin, Predictions, collect, read_predictions
from minima_core.evaluation.protocol import Matching
from minima_core.evaluation.protocol import Protocol as EvaluationProtocol
from minima_core.io.images import to_tensor
from minima_core.progress import track
from minima_core.types import Matches

PART = 16  # pairs a part: what a killed run loses at most, a few seconds
KEPT_FEATURES = 160  # images whose features are kept in memory; the worst are the images themselves, 4 MB each


class MatchesImages(Protocol):
    """What can be evaluated."""

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
    with _one_thread_each(), ThreadPoolExecutor(workers) as pool:
        for i in track(todo, f"match {manifest.benchmark} (parts of {PART})", total=len(batches), done=len(done)):
            found = list(pool.map(worker, batches[i]))
            done[i] = collect(origin, [truth.name for truth in batches[i]], found)
            done[i].save(parts / str(i))
    whole = collect(origin, [t.name for t in truths], [m for i in range(len(batches)) for m in done[i]])
    seconds = time.monotonic() - started
    whole.save(out)
    shutil.rmtree(parts, ignore_errors=True)
    with suppress(OSError):  # other benchmarks may have parts beside ours
        scratch.rmdir()
    return MatchRun(whole, sum(len(batches[i]) for i in todo), seconds)


def _part(folder: Path, origin: Origin) -> Predictions | None:
    """Return a finished part of the same origin; None where there is none or it cannot be read."""
    if not (folder / Predictions.FILE).is_file():
        return None
    try:
        part = read_predictions(folder)
    except DataError:
        return None
    return part if part.origin == origin else None


class _Worker:
    """Matches one pair; features are shared between the pairs of an image where the matcher allows it."""

    def __init__(self, matcher: MatchesImages, prepared: Prepared, settings: Matching) -> None:
        self.matcher = matcher
        self.prepared = prepared
        self.how = {"max_keypoints": settings.max_keypoints, "long_side": settings.long_side}
        self.features: dict[str, Any] = {}
        self.lock = threading.Lock()

    def __call__(self, truth: PairTruth) -> Matches:
        if isinstance(self.matcher, ReusesFeatures):
            return self.matcher.match_features(
                self._features(self.matcher, truth.image0, truth.sha0),
                self._features(self.matcher, truth.image1, truth.sha1),
            )
        pair = self.prepared.load(truth)
        return self.matcher.match(pair.image0, pair.image1, **self.how)

    def _features(self, matcher: ReusesFeatures, reference: str, sha256: str) -> Any:
        if (kept := self.features.get(reference)) is not None:
            return kept
        features = matcher.extract(to_tensor(self.prepared.image(reference, sha256)), **self.how)
        with self.lock:
            while len(self.features) >= KEPT_FEATURES:
                self.features.pop(next(iter(self.features)))  # the oldest
            self.features[reference] = features
        return features


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let torch work on one thread a call: sums then have one order, whatever machine or number of workers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
