"""The same predictions scored in many ways: by both estimators, at several thresholds, with several seeds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from minima_core.evaluation.protocol import OTHER_ESTIMATORS, PoseLib, Protocol, Sweep, with_estimator
from minima_core.evaluation.scoring import Variant, check_predictions, in_parts, score_part, summarise
from minima_core.parallel import map_jobs

FULL = Sweep(thresholds=(0.5, 1.0, 1.5, 2.0, 3.0, 5.0), seeds=(0, 1, 2))  # where nobody says another


def sweep_predictions(
    predictions: Path, benchmark: Path, protocol: Protocol, sweep: Sweep = FULL, *, workers: int = 1
) -> list[Variant]:
    """Score ``predictions/predictions.h5`` in all ways; what is matched stays that of ``protocol``.

    A seed is the estimator's where it takes one, and the order in which it gets the matches: OpenCV draws alike at
    every call, so that only another order gives another draw. Seed 0 leaves the order as it is.

    Raises:
        DataError: as ``score_predictions``.
    """
    found, prepared = check_predictions(predictions, benchmark, protocol)
    matches = list(found)
    ways = list(_ways(protocol, sweep)) if matches else []
    parts = [in_parts(prepared.list.pairs, matches, changed, order=seed) for changed, seed in ways]
    jobs = [part for own in parts for part in own]
    scored = iter(map_jobs(score_part, jobs, workers=workers, what=f"ways to score {found.origin.benchmark}"))
    rows = [[row for _ in own for row in next(scored)] for own in parts]
    return [
        Variant(
            estimator=changed.pose.estimator,
            threshold=changed.pose.threshold,
            seed=seed,
            protocol_hash=changed.digest(),
            metrics=summarise(own, prepared.list, changed)[0],
            failures=sum(row.failure is not None for row in own),
        )
        for (changed, seed), own in zip(ways, rows, strict=True)
    ]


def _ways(protocol: Protocol, sweep: Sweep) -> Iterator[tuple[Protocol, int]]:
    for estimator in OTHER_ESTIMATORS:
        for threshold in sweep.thresholds:
            for seed in sweep.seeds:
                yield _seeded(with_estimator(protocol, estimator, threshold=threshold), seed), seed


def _seeded(protocol: Protocol, seed: int) -> Protocol:
    if not isinstance(protocol.pose, PoseLib):
        return protocol
    pose, homography = (part.model_copy(update={"seed": seed}) for part in (protocol.pose, protocol.homography))
    return protocol.model_copy(update={"pose": pose, "homography": homography})
