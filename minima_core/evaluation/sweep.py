"""The same predictions scored in many ways: by both estimators, at several thresholds, with several seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from minima_core.evaluation.metrics import Metrics
from minima_core.evaluation.protocol import OTHER_ESTIMATORS, PoseLib, Protocol, with_estimator
from minima_core.evaluation.scoring import check_predictions, in_parts, score_part, summarise
from minima_core.manifest import Record
from minima_core.parallel import map_jobs

THRESHOLDS = (0.5, 1.0, 1.5, 2.0, 3.0, 5.0)  # pixels
SEEDS = (0, 1, 2)


class Variant(BaseModel):
    """One way of scoring, and what came of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    estimator: str
    threshold: float
    seed: int
    protocol_hash: str
    metrics: Metrics
    failures: int


class Sweep(Record):
    """All ways of scoring one model on one benchmark (``sweep.json``)."""

    FILE: ClassVar[str] = "sweep.json"
    REMEDY: ClassVar[str] = "make it with `minima score --sweep`"
    version: Literal[1] = 1
    benchmark: str
    protocol: str
    model: str
    data_digest: str
    variants: list[Variant]


def sweep_predictions(
    predictions: Path,
    benchmark: Path,
    protocol: Protocol,
    *,
    thresholds: Sequence[float] = THRESHOLDS,
    seeds: Sequence[int] = SEEDS,
    workers: int = 1,
) -> Sweep:
    """Score ``predictions/predictions.h5`` in all ways; what is matched stays that of ``protocol``.

    A seed is the estimator's where it takes one, and the order in which it gets the matches: OpenCV draws alike at
    every call, so that only another order gives another draw. Seed 0 leaves the order as it is.

    Raises:
        DataError: as ``score_predictions``.
    """
    found, pairs = check_predictions(predictions, benchmark, protocol)
    matches = list(found)
    ways = list(_ways(protocol, thresholds, seeds))
    parts = [in_parts(pairs.list.pairs, matches, changed, order=seed) for changed, seed in ways]
    jobs = [part for own in parts for part in own]
    scored = iter(map_jobs(score_part, jobs, workers=workers, what=f"ways to score {found.origin.benchmark}"))
    rows = [[row for _ in own for row in next(scored)] for own in parts]
    return Sweep(
        benchmark=found.origin.benchmark,
        protocol=protocol.name,
        model=found.origin.model,
        data_digest=found.origin.benchmark_digest,
        variants=[
            Variant(
                estimator=changed.pose.estimator,
                threshold=changed.pose.threshold,
                seed=seed,
                protocol_hash=changed.digest(),
                metrics=summarise(own, pairs.list, changed)[0],
                failures=sum(row.failure is not None for row in own),
            )
            for (changed, seed), own in zip(ways, rows, strict=True)
        ],
    )


def _ways(protocol: Protocol, thresholds: Sequence[float], seeds: Sequence[int]) -> Iterator[tuple[Protocol, int]]:
    for estimator in OTHER_ESTIMATORS:
        for threshold in thresholds:
            for seed in seeds:
                yield _seeded(with_estimator(protocol, estimator, threshold=threshold), seed), seed


def _seeded(protocol: Protocol, seed: int) -> Protocol:
    if not isinstance(protocol.pose, PoseLib):
        return protocol
    pose, homography = (part.model_copy(update={"seed": seed}) for part in (protocol.pose, protocol.homography))
    return protocol.model_copy(update={"pose": pose, "homography": homography})
