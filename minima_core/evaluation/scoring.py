"""The second pass of an evaluation: predictions to errors and numbers, on the CPU, from files alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from minima_core.config import digest
from minima_core.errors import DataError
from minima_core.evaluation.benchmarks.base import PairList, PairTruth, Prepared, Task
from minima_core.evaluation.bootstrap import Intervals, intervals
from minima_core.evaluation.estimate import Estimate
from minima_core.evaluation.homography import estimate_homography
from minima_core.evaluation.metrics import (
    Metrics,
    aggregate,
    epipolar_errors,
    macro,
    pose_error,
    reprojection_errors,
)
from minima_core.evaluation.pose import estimate_pose
from minima_core.evaluation.predictions import Predictions, read_predictions
from minima_core.evaluation.protocol import Protocol
from minima_core.evaluation.rejection import rejection_metrics
from minima_core.geometry.homography import corner_error, reordered_corner_error
from minima_core.manifest import Record, titled
from minima_core.parallel import map_jobs
from minima_core.random import rng
from minima_core.types import Matches

PART = 16  # pairs a job: a few hundred milliseconds of work


class PairScore(BaseModel):
    """What became of one pair.

    ``error`` is in degrees (pose) or pixels (homography), None where no model was found or there is no true one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    category: str
    error: float | None
    matches: int
    inliers: int
    confidence: float = 0.0  # sum of the scores of all matches
    failure: str | None = None


class Variant(BaseModel):
    """What comes of another way of scoring the same predictions: the headline metrics, and how many gave no model."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    estimator: str
    threshold: float
    seed: int
    protocol_hash: str
    metrics: Metrics
    failures: int


class Scores(Record):
    """Everything about one model on one benchmark (``scores.json``)."""

    FILE: ClassVar[str] = "scores.json"
    REMEDY: ClassVar[str] = "score the predictions with `dvc repro score`"
    version: Literal[1] = 1
    benchmark: str
    protocol: str
    protocol_hash: str
    model: str  # digest of its card, or the name it was asked for by
    data_digest: str
    subset: str = ""  # what part of the benchmark was scored; "" for the whole
    seed: int  # of the robust estimator
    licence: str
    metrics: Metrics
    headline: list[str] = Field(default_factory=list)  # categories that ``metrics`` are over; empty: all
    categories: dict[str, Metrics]
    groups: dict[str, Metrics]  # of categories
    intervals: Intervals = Field(default_factory=dict)  # of the metrics: 95 % over resampled pairs
    floor: float | None = None  # median distance in pixels of hand-set landmarks to the truth; None: there are none
    sweep: list[Variant] = Field(default_factory=list)  # how far the metrics depend on the estimator's settings
    pairs: list[PairScore]
    skipped: str = ""

    @property
    def title(self) -> str:
        """The benchmark, and which part of it where that is not the whole."""
        return titled(self.benchmark, self.subset)

    @property
    def failures(self) -> int:
        """How many pairs gave no model."""
        return sum(pair.failure is not None for pair in self.pairs)


@dataclass(frozen=True)
class Part:
    """Pairs that one process scores; ``order`` is the seed of the order that estimators get matches in, 0 as found."""

    truths: Sequence[PairTruth]
    matches: Sequence[Matches]
    protocol: Protocol
    order: int = 0


def score_predictions(predictions: Path, benchmark: Path, protocol: Protocol, *, workers: int = 1) -> Scores:
    """Score ``predictions/predictions.h5`` against the ground truth of a prepared ``benchmark`` folder.

    Raises:
        DataError: if the predictions are of another benchmark, of other data or of other matching settings.
    """
    found, prepared = check_predictions(predictions, benchmark, protocol)
    origin, manifest = found.origin, prepared.manifest
    rows = score_pairs(
        prepared.list.pairs,
        list(found),
        protocol,
        workers=workers,
        what=f"score {manifest.benchmark} (parts of {PART})",
    )
    metrics, categories, groups = summarise(rows, prepared.list, protocol)
    return Scores(
        benchmark=manifest.benchmark,
        protocol=protocol.name,
        protocol_hash=protocol.digest(),
        model=origin.model,
        data_digest=manifest.data_digest,
        subset=manifest.subset,
        seed=protocol.homography.seed if prepared.list.task == "homography" else protocol.pose.seed,
        licence=origin.licence,
        metrics=metrics,
        headline=prepared.list.headline,
        categories=categories,
        groups=groups,
        intervals=headline_intervals(rows, prepared.list, protocol, manifest.benchmark),
        floor=float(np.median(list(prepared.list.floor.values()))) if prepared.list.floor else None,
        pairs=rows,
        skipped=manifest.skipped,
    )


def check_predictions(predictions: Path, benchmark: Path, protocol: Protocol) -> tuple[Predictions, Prepared]:
    """Return predictions and the benchmark they are of.

    Raises:
        DataError: as ``score_predictions``.
    """
    found, prepared = read_predictions(predictions), Prepared(benchmark)
    prepared.check_protocol(protocol.name)
    origin, manifest = found.origin, prepared.manifest
    if (origin.benchmark, origin.benchmark_digest) != (manifest.benchmark, manifest.data_digest):
        what = titled(manifest.benchmark, manifest.subset or "full")
        raise DataError(
            f"{predictions} holds matches of other data than {what}; name the subset that was matched, or match again"
        )
    if origin.matching_digest != digest(protocol.matching):
        raise DataError(
            f"{predictions} was matched otherwise than {protocol.name} says; give the --protocol, --max-keypoints and "
            "--long-side that it was matched with, or match the benchmark again"
        )
    if found.names != [truth.name for truth in prepared.list.pairs]:
        raise DataError(f"{predictions} does not hold the pairs of {manifest.benchmark}; match the benchmark again")
    return found, prepared


def score_pairs(
    truths: Sequence[PairTruth], matches: Sequence[Matches], protocol: Protocol, *, workers: int, what: str
) -> list[PairScore]:
    """Return a score a pair, in order; the same for any number of ``workers`` (processes)."""
    parts = in_parts(truths, matches, protocol)
    return [row for rows in map_jobs(score_part, parts, workers=workers, what=what) for row in rows]


def in_parts(
    truths: Sequence[PairTruth], matches: Sequence[Matches], protocol: Protocol, *, order: int = 0
) -> list[Part]:
    """Return the pairs in parts of ``PART``."""
    starts = range(0, len(truths), PART)
    return [Part(truths[k : k + PART], matches[k : k + PART], protocol, order) for k in starts]


def score_part(part: Part) -> list[PairScore]:
    """Return a score for each pair of a part."""
    rows = zip(part.truths, part.matches, strict=True)
    return [score_pair(truth, _ordered(found, part.order, truth.name), part.protocol) for truth, found in rows]


def _ordered(matches: Matches, seed: int, name: str) -> Matches:
    if not seed:
        return matches
    order = torch.from_numpy(rng(seed, "order of matches", name).permutation(len(matches)))
    return Matches(matches.mkpts0[order], matches.mkpts1[order], matches.scores[order])


def score_pair(truth: PairTruth, matches: Matches, protocol: Protocol) -> PairScore:
    """Estimate the pair's pose or homography from its matches and compare it with the truth, if there is one."""
    estimate = estimate_pair(truth, matches, protocol)
    error = _error(truth, estimate, protocol) if truth.related else math.nan
    failure = estimate.failure or ("a corner goes to infinity" if math.isinf(error) else "")
    return PairScore(
        name=truth.name,
        category=truth.category,
        error=error if math.isfinite(error) else None,
        matches=len(matches),
        inliers=int(estimate.inliers.sum()),
        confidence=float(matches.scores.double().sum()),
        failure=failure or None,
    )


def estimate_pair(truth: PairTruth, matches: Matches, protocol: Protocol) -> Estimate:
    """Return the pose or homography from image 0 to image 1 that the matches of a pair imply."""
    kpts0, kpts1 = matches.mkpts0.numpy(), matches.mkpts1.numpy()
    if truth.K0 is not None:
        return estimate_pose(kpts0, kpts1, truth.tensor("K0").numpy(), truth.tensor("K1").numpy(), protocol.pose)
    if protocol.corner_error != "reordered_swapped":
        return estimate_homography(kpts0, kpts1, protocol.homography)
    back = estimate_homography(kpts1, kpts0, protocol.homography)
    if back.model is None or abs(np.linalg.det(back.model)) < 1e-15:
        return Estimate(None, back.inliers, back.failure or "no homography found")
    return Estimate(np.linalg.inv(back.model), back.inliers)


def _error(truth: PairTruth, estimate: Estimate, protocol: Protocol) -> float:
    if estimate.model is None:
        return math.inf
    model = torch.from_numpy(estimate.model)
    if truth.H_0to1 is None:
        return pose_error(model, truth.tensor("T_0to1"))
    H_0to1 = truth.tensor("H_0to1")
    if protocol.corner_error == "strict":
        return corner_error(model, H_0to1, truth.size0)
    if protocol.corner_error == "reordered_inverse":
        if abs(float(torch.linalg.det(model))) < 1e-15:
            return math.inf
        return reordered_corner_error(torch.linalg.inv(model), torch.linalg.inv(H_0to1), truth.size1)
    return reordered_corner_error(model, H_0to1, truth.size0)


def match_errors(truth: PairTruth, matches: Matches) -> torch.Tensor:
    """Return (N,) how far each match is from the truth, in pixels: to the epipolar lines, or to H's image."""
    if truth.H_0to1 is not None:
        return reprojection_errors(matches.mkpts0, matches.mkpts1, truth.tensor("H_0to1"))
    return epipolar_errors(
        matches.mkpts0, matches.mkpts1, truth.tensor("T_0to1"), truth.tensor("K0"), truth.tensor("K1")
    )


def summarise(
    rows: Sequence[PairScore], pairs: PairList, protocol: Protocol
) -> tuple[Metrics, dict[str, Metrics], dict[str, Metrics]]:
    """Return the headline metrics, those of each category, and those of each group of categories."""
    values = _by_category(rows, pairs)
    categories = {name: _together(values, [name], pairs.task, protocol) for name in values}
    groups = {group: _together(values, names, pairs.task, protocol) for group, names in pairs.groups.items()}
    return _headline(values, pairs, protocol) if rows else {}, categories, groups


def headline_intervals(rows: Sequence[PairScore], pairs: PairList, protocol: Protocol, benchmark: str) -> Intervals:
    """Return the bootstrap intervals of the headline metrics over pairs."""
    values = _by_category(rows, pairs)
    chosen = {name: values[name] for name in pairs.headline or values} if values else {}
    return intervals(chosen, lambda drawn: _headline(drawn, pairs, protocol), name=benchmark)


def _by_category(rows: Sequence[PairScore], pairs: PairList) -> dict[str, np.ndarray]:
    """Return what metrics are made from: (N, 4) error (inf for failures), related or not, inliers, confidence."""
    related = {pair.name: pair.related for pair in pairs.pairs}
    values: dict[str, list[tuple[float, bool, int, float]]] = {}
    for row in rows:
        error = math.inf if row.error is None else row.error
        values.setdefault(row.category, []).append((error, related[row.name], row.inliers, row.confidence))
    return {name: np.array(own, dtype=np.float64) for name, own in values.items()}


def _headline(values: Mapping[str, np.ndarray], pairs: PairList, protocol: Protocol) -> Metrics:
    if protocol.aggregation == "groups" and pairs.groups:
        return macro(_together(values, names, pairs.task, protocol) for names in pairs.groups.values())
    return _together(values, pairs.headline or list(values), pairs.task, protocol)


def _together(values: Mapping[str, np.ndarray], names: Sequence[str], task: Task, protocol: Protocol) -> Metrics:
    if task == "overlap":
        return macro(rejection_metrics(values[name][:, 1] > 0, *values[name].T[2:]) for name in names)
    how: Literal["macro", "pooled"] = "pooled" if protocol.aggregation == "pooled" else "macro"
    errors = {name: values[name][:, 0] for name in names}
    return aggregate(errors, names, *thresholds_of(task, protocol), how)


def thresholds_of(task: Task, protocol: Protocol) -> tuple[tuple[float, ...], str]:
    """Return the thresholds of a task and the unit in its metric names."""
    if task == "homography":
        return protocol.homography_thresholds, "px"
    return protocol.pose_thresholds, ""
