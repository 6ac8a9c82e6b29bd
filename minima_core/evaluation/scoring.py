"""The second pass of an evaluation: predictions to errors and numbers, on the CPU, from files alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar, Literal

import torch
from pydantic import BaseModel, ConfigDict

from minima_core.config import digest
from minima_core.errors import DataError
from minima_core.evaluation.benchmarks.base import PairList, PairTruth, Prepared, Task
from minima_core.evaluation.estimate import Estimate
from minima_core.evaluation.homography import estimate_homography
from minima_core.evaluation.metrics import (
    Metrics,
    aggregate,
    auc_metrics,
    epipolar_errors,
    pose_error,
    reprojection_errors,
)
from minima_core.evaluation.pose import estimate_pose
from minima_core.evaluation.predictions import read_predictions
from minima_core.evaluation.protocol import Protocol
from minima_core.geometry.homography import corner_error, reordered_corner_error
from minima_core.manifest import Record
from minima_core.progress import track
from minima_core.types import Matches


class PairScore(BaseModel):
    """What became of one pair; ``error`` is in degrees (pose) or pixels (homography), None where no model was found."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str
    category: str
    error: float | None
    matches: int
    inliers: int
    failure: str | None = None


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
    seed: int  # of the robust estimator
    licence: str
    metrics: Metrics
    categories: dict[str, Metrics]
    groups: dict[str, Metrics]  # of categories
    pairs: list[PairScore]
    skipped: str = ""

    @property
    def failures(self) -> int:
        """How many pairs gave no model."""
        return sum(pair.error is None for pair in self.pairs)


def score_predictions(predictions: Path, benchmark: Path, protocol: Protocol) -> Scores:
    """Score ``predictions/predictions.h5`` against the ground truth of a prepared ``benchmark`` folder.

    Raises:
        DataError: if the predictions are of another benchmark, of other data or of other matching settings.
    """
    found, prepared = read_predictions(predictions), Prepared(benchmark)
    origin, manifest = found.origin, prepared.manifest
    if (origin.benchmark, origin.benchmark_digest) != (manifest.benchmark, manifest.data_digest):
        raise DataError(f"{predictions} holds matches of other data than {benchmark}; match the benchmark again")
    if origin.matching_digest != digest(protocol.matching):
        raise DataError(f"{predictions} was matched otherwise than {protocol.name} says; match the benchmark again")
    if found.names != [truth.name for truth in prepared.list.pairs]:
        raise DataError(f"{predictions} does not hold the pairs of {benchmark}; match the benchmark again")
    jobs = zip(prepared.list.pairs, found, strict=True)
    rows = [
        score_pair(truth, matches, protocol)
        for truth, matches in track(jobs, f"score {manifest.benchmark}", total=len(found))
    ]
    metrics, categories, groups = summarise(rows, prepared.list, protocol)
    return Scores(
        benchmark=manifest.benchmark,
        protocol=protocol.name,
        protocol_hash=protocol.digest(),
        model=origin.model,
        data_digest=manifest.data_digest,
        seed=protocol.pose.seed if prepared.list.task == "pose" else protocol.homography.seed,
        licence=origin.licence,
        metrics=metrics,
        categories=categories,
        groups=groups,
        pairs=rows,
        skipped=manifest.skipped,
    )


def score_pair(truth: PairTruth, matches: Matches, protocol: Protocol) -> PairScore:
    """Estimate the pair's pose or homography from its matches and compare it with the truth."""
    estimate = estimate_pair(truth, matches, protocol)
    error = _error(truth, estimate, protocol)
    failure = estimate.failure or ("" if math.isfinite(error) else "a corner goes to infinity")
    return PairScore(
        name=truth.name,
        category=truth.category,
        error=None if failure else error,
        matches=len(matches),
        inliers=int(estimate.inliers.sum()),
        failure=failure or None,
    )


def estimate_pair(truth: PairTruth, matches: Matches, protocol: Protocol) -> Estimate:
    """Return the pose or homography that the matches of a pair imply."""
    kpts0, kpts1 = matches.mkpts0.numpy(), matches.mkpts1.numpy()
    if truth.H_0to1 is not None:
        return estimate_homography(kpts0, kpts1, protocol.homography)
    return estimate_pose(kpts0, kpts1, truth.tensor("K0").numpy(), truth.tensor("K1").numpy(), protocol.pose)


def _error(truth: PairTruth, estimate: Estimate, protocol: Protocol) -> float:
    if estimate.model is None:
        return math.inf
    model = torch.from_numpy(estimate.model)
    if truth.H_0to1 is not None:
        error = corner_error if protocol.corner_error == "strict" else reordered_corner_error
        return error(model, truth.tensor("H_0to1"), truth.size0)
    return pose_error(model, truth.tensor("T_0to1"))


def match_errors(truth: PairTruth, matches: Matches) -> torch.Tensor:
    """Return (N,) how far each match is from the truth, in pixels: to the epipolar lines, or to H's image."""
    if truth.H_0to1 is not None:
        return reprojection_errors(matches.mkpts0, matches.mkpts1, truth.tensor("H_0to1"))
    return epipolar_errors(
        matches.mkpts0, matches.mkpts1, truth.tensor("T_0to1"), truth.tensor("K0"), truth.tensor("K1")
    )


def summarise(
    rows: list[PairScore], pairs: PairList, protocol: Protocol
) -> tuple[Metrics, dict[str, Metrics], dict[str, Metrics]]:
    """Return the headline metrics, those of each category, and those of each group of categories."""
    thresholds, unit = thresholds_of(pairs.task, protocol)
    errors: dict[str, list[float]] = {}
    for row in rows:
        errors.setdefault(row.category, []).append(math.inf if row.error is None else row.error)
    categories = {name: auc_metrics(values, thresholds, unit) for name, values in errors.items()}

    def together(names: list[str]) -> Metrics:
        return aggregate(errors, names, thresholds, unit, protocol.aggregation)

    groups = {group: together(names) for group, names in pairs.groups.items()}
    return together(pairs.headline or list(errors)) if rows else {}, categories, groups


def thresholds_of(task: Task, protocol: Protocol) -> tuple[tuple[float, ...], str]:
    """Return the thresholds of a task and the unit in its metric names."""
    if task == "pose":
        return protocol.pose_thresholds, ""
    return protocol.homography_thresholds, "px"
