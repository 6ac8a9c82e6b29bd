"""The same predictions scored in many ways: by both estimators, at several thresholds, with several seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict

from minima_core.evaluation.benchmarks.base import Prepared
from minima_core.evaluation.metrics import Metrics
from minima_core.evaluation.predictions import read_predictions
from minima_core.evaluation.protocol import OTHER_ESTIMATORS, PoseLib, Protocol, with_estimator
from minima_core.evaluation.scoring import score_pairs, score_predictions, summarise
from minima_core.manifest import Record
from minima_core.random import rng
from minima_core.types import Matches

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
    base = score_predictions(predictions, benchmark, protocol, workers=workers)
    found, pairs = read_predictions(predictions), Prepared(benchmark).list
    variants = []
    for changed, seed in _ways(protocol, thresholds, seeds):
        matches = [_shuffled(m, seed, name) for m, name in zip(found, found.names, strict=True)]
        what = f"{changed.pose.estimator} at {changed.pose.threshold:g} px, seed {seed}"
        rows = score_pairs(pairs.pairs, matches, changed, workers=workers, what=what)
        variants.append(
            Variant(
                estimator=changed.pose.estimator,
                threshold=changed.pose.threshold,
                seed=seed,
                protocol_hash=changed.digest(),
                metrics=summarise(rows, pairs, changed)[0],
                failures=sum(row.failure is not None for row in rows),
            )
        )
    return Sweep(
        benchmark=base.benchmark,
        protocol=protocol.name,
        model=base.model,
        data_digest=base.data_digest,
        variants=variants,
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


def _shuffled(matches: Matches, seed: int, name: str) -> Matches:
    if not seed:
        return matches
    order = torch.from_numpy(rng(seed, "order of matches", name).permutation(len(matches)))
    return Matches(matches.mkpts0[order], matches.mkpts1[order], matches.scores[order])
