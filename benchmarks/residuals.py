"""Whether what matches are off by is their own: `python benchmarks/residuals.py BENCHMARK PREDICTIONS [--other P]`.

BENCHMARK is a prepared folder of pairs under homographies, PREDICTIONS what `minima evaluate --keep` left of it. What a
matcher adds to a match by chance differs from one match to the next; what the scene does (relief, a curved retina) or
the ground truth lacks, neighbours share. So the errors of the `NEIGHBOURS` nearest matches are averaged, which leaves
the shared part: printed are its correlation with a match's own error (its own and those within `APART` left out), how
the pairs score as they are and once each match is off by the shared part alone, and, with the matches of another
matcher, how far the shared parts of the two agree. The truth is used for all of this: it is a diagnosis, no method.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import cKDTree

from minima_core.evaluation.benchmarks.base import PairTruth, Prepared
from minima_core.evaluation.protocol import Protocol, get_protocol
from minima_core.evaluation.scoring import check_predictions, score_pairs, summarise
from minima_core.geometry.homography import warp_homography
from minima_core.types import Matches

NEAR = 10.0  # pixels from the truth that a right match lies
APART = 6.0  # pixels that neighbours keep, so that one corner found twice is not its own witness
NEIGHBOURS, LEAST = 20, 100  # matches averaged; right ones that a pair needs to be looked at


@dataclass(frozen=True)
class Errors:
    """The right matches of a pair: where they lie in image 0, (N, 2), and what they are off by in image 1, (N, 2)."""

    right: np.ndarray  # (M,) bool, of all matches
    kpts0: np.ndarray
    own: np.ndarray

    def shared(self, at: np.ndarray) -> np.ndarray:
        """Return (K, 2), the mean error of the matches nearest to each of the (K, 2) points ``at``."""
        _, nearest = cKDTree(self.kpts0).query(at, k=NEIGHBOURS)
        return np.asarray(self.own[nearest].mean(1))

    def agreement(self) -> float:
        """Return the correlation of a match's error with the mean of its neighbours'."""
        _, nearest = cKDTree(self.kpts0).query(self.kpts0, k=NEIGHBOURS)
        apart = np.linalg.norm(self.kpts0[nearest] - self.kpts0[:, None], axis=2) > APART
        some = apart.any(1)
        means = (self.own[nearest] * apart[..., None]).sum(1)[some] / apart.sum(1)[some, None]
        return correlation(self.own[some], means)


def main() -> None:
    """Print a row for each category, and the scores of the groups."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("benchmark", type=Path)
    parser.add_argument("predictions", type=Path)
    parser.add_argument("--other", type=Path)
    parser.add_argument("--protocol", default="strict-v1")
    parser.add_argument("--max-keypoints", type=int)
    arguments = parser.parse_args()
    protocol = get_protocol(arguments.protocol, max_keypoints=arguments.max_keypoints)
    found, prepared = check_predictions(arguments.predictions, arguments.benchmark, protocol)
    truths, matches = prepared.list.pairs, list(found)
    errors = [of_pair(truth, some) for truth, some in zip(truths, matches, strict=True)]
    others: list[Errors | None] = [None] * len(truths)
    if arguments.other:
        other, _ = check_predictions(arguments.other, arguments.benchmark, protocol)
        others = [of_pair(truth, some) for truth, some in zip(truths, other, strict=True)]
    print(f"{'category':34} pairs   px off   with neighbours   with the other matcher")
    for category in dict.fromkeys(truth.category for truth in truths):
        chosen = [k for k, truth in enumerate(truths) if truth.category == category]
        print(f"{category:34} {row([errors[k] for k in chosen], [others[k] for k in chosen])}")
    denoised = [
        some if e is None else moved(truth, some, e) for truth, some, e in zip(truths, matches, errors, strict=True)
    ]
    report("as they are", prepared, matches, protocol)
    report("off by the shared part alone", prepared, denoised, protocol)


def of_pair(truth: PairTruth, matches: Matches) -> Errors | None:
    """Return the errors of a pair's right matches; None where there are few."""
    off = (matches.mkpts1.double() - warp_homography(truth.tensor("H_0to1"), matches.mkpts0.double())).numpy()
    right = np.linalg.norm(off, axis=1) < NEAR
    if right.sum() < LEAST:
        return None
    return Errors(right, matches.mkpts0.double().numpy()[right], off[right])


def row(errors: Sequence[Errors | None], others: Sequence[Errors | None]) -> str:
    """Return one category's medians over its pairs."""
    there = [e for e in errors if e is not None]
    if not there:
        return f"{0:5}"
    both = [(e, o) for e, o in zip(errors, others, strict=True) if e is not None and o is not None]
    off = np.median([np.median(np.linalg.norm(e.own, axis=1)) for e in there])
    shared = np.median([e.agreement() for e in there])
    agreed = [correlation(e.shared(e.kpts0), o.shared(e.kpts0)) for e, o in both]
    return f"{len(there):5} {off:8.2f} {shared:17.2f}" + (f" {np.median(agreed):24.2f}" if agreed else "")


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Return the correlation of two fields of vectors, (N, 2), each about its mean."""
    a, b = a - a.mean(0), b - b.mean(0)
    return float((a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum()))


def moved(truth: PairTruth, matches: Matches, errors: Errors) -> Matches:
    """Return the matches, the right ones off by the shared part alone."""
    kpts1 = matches.mkpts1.clone()
    right = torch.from_numpy(errors.right)
    exact = warp_homography(truth.tensor("H_0to1"), torch.from_numpy(errors.kpts0))
    kpts1[right] = (exact + torch.from_numpy(errors.shared(errors.kpts0))).to(kpts1.dtype)
    return Matches(matches.mkpts0, kpts1, matches.scores)


def report(what: str, prepared: Prepared, matches: Sequence[Matches], protocol: Protocol) -> None:
    """Print the scores of matches."""
    rows = score_pairs(prepared.list.pairs, matches, protocol, workers=1, what=what)
    metrics, _, groups = summarise(rows, prepared.list, protocol)
    for name, values in {"mean": metrics, **groups}.items():
        print(f"{what}: {name:14} " + "  ".join(f"{metric} {value:.1f}" for metric, value in values.items()))


if __name__ == "__main__":
    main()
