"""Time the scoring of predictions: all cores against one process, for essential matrices and homographies.

``python benchmarks/scoring.py [--pairs 128] [--matches 1000] [--runs 3] [--workers N] [--tasks homography]``: both ways
score the same pairs by turns, so that what else the machine does hits both; the table gives medians, and pairs a second
of each estimator. Processes take a second to start: the faster the task, the more pairs it takes to be worth it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

import numpy as np
import torch

from minima_core.evaluation.benchmarks.base import PairTruth, as_matrix
from minima_core.evaluation.protocol import get_protocol, with_estimator
from minima_core.evaluation.scoring import score_pairs
from minima_core.random import rng
from minima_core.types import Matches

TASKS = ("essential matrix", "homography")
SIZE = (640, 480)
K = np.array([[520.0, 0, 320], [0, 520, 240], [0, 0, 1]])


def pair(task: str, number: int, n: int, wrong: float) -> tuple[PairTruth, Matches]:
    """Return a pair with ``n`` matches that are half a pixel off, a share ``wrong`` of them anywhere."""
    random = rng(number, task)
    about: dict[str, object] = {}
    if task == "essential matrix":
        angle = random.uniform(-0.3, 0.3)
        T = np.eye(4)
        T[:3, :3] = [[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]]
        T[:3, 3] = random.normal(0, 0.5, 3)
        points = random.uniform([-2, -1.5, 4], [2, 1.5, 9], (n, 3))
        seen0, seen1 = points @ K.T, (points @ T[:3, :3].T + T[:3, 3]) @ K.T
        about = {"K0": as_matrix(K), "K1": as_matrix(K), "T_0to1": as_matrix(T)}
    else:
        H = np.eye(3) + random.normal(0, [[0.1, 0.1, 20], [0.1, 0.1, 20], [1e-4, 1e-4, 0]])
        seen0 = np.column_stack([random.uniform([0, 0], SIZE, (n, 2)), np.ones(n)])
        seen1 = seen0 @ H.T
        about = {"H_0to1": as_matrix(H)}
    kpts0, kpts1 = (seen[:, :2] / seen[:, 2:] + random.normal(0, 0.5, (n, 2)) for seen in (seen0, seen1))
    kpts1[: int(wrong * n)] = random.uniform([0, 0], SIZE, (int(wrong * n), 2))
    files = {"image0": "0", "image1": "1", "sha0": "", "sha1": "", "size0": SIZE, "size1": SIZE}
    matches = Matches(torch.from_numpy(kpts0).float(), torch.from_numpy(kpts1).float(), torch.ones(n))
    return PairTruth(name=str(number), category="c", **files, **about), matches  # type: ignore[arg-type]


def main() -> None:
    """Score by turns and print the table."""
    cores = len(os.sched_getaffinity(0))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=128)
    parser.add_argument("--matches", type=int, default=1000)
    parser.add_argument("--wrong", type=float, default=0.5, help="share of wrong matches")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=cores)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS)
    given = parser.parse_args()
    print(f"{given.pairs} pairs of {given.matches} matches, {given.wrong:.0%} wrong; load {os.getloadavg()[0]:.1f}")
    print(f"| task | estimator | 1 process, pairs/s | {given.workers} processes, pairs/s | times | median error |")
    print("|---|---|---:|---:|---:|---:|")
    for task in given.tasks:
        made = [pair(task, number, given.matches, given.wrong) for number in range(given.pairs)]
        truths, matches = [truth for truth, _ in made], [found for _, found in made]
        for estimator in ("poselib", "opencv"):
            protocol = with_estimator(get_protocol("strict-v1"), estimator)
            seconds: dict[int, list[float]] = {1: [], given.workers: []}
            rows = {}
            for _ in range(given.runs):
                for workers, taken in seconds.items():
                    start = time.perf_counter()
                    rows[workers] = score_pairs(truths, matches, protocol, workers=workers, what=task)
                    taken.append(time.perf_counter() - start)
            assert len({tuple(found) for found in map(tuple, rows.values())}) == 1, "the ways of scoring disagree"
            one, all_ = (given.pairs / statistics.median(seconds[w]) for w in seconds)
            ratio = statistics.median(a / b for a, b in zip(seconds[1], seconds[given.workers], strict=True))
            errors = [row.error if row.error is not None else np.inf for row in rows[1]]
            unit = "°" if task == "essential matrix" else " px"
            print(f"| {task} | {estimator} | {one:.0f} | {all_:.0f} | {ratio:.2f} | {np.median(errors):.2f}{unit} |")


if __name__ == "__main__":
    main()
