"""What became of every pair: two models' errors against each other, and how many pairs are within which error."""

from __future__ import annotations

import math
from collections.abc import Sequence

from minima_core.evaluation.scoring import PairScore, Scores

POINTS = 60  # of an error curve


def reach(scores: Scores) -> float:
    """Return the largest threshold of the metrics: errors beyond it are all the same."""
    at = [name.partition("@")[2].removesuffix("px") for name in scores.metrics if name.startswith("auc@")]
    return max((float(threshold) for threshold in at), default=0.0)


def unit(scores: Scores) -> str:
    """Return the unit of the errors."""
    return " px" if any(name.endswith("px") for name in scores.metrics) else "°"


def error_curve(scores: Scores) -> list[tuple[float, float]]:
    """Return (error, percent of pairs within it) up to the largest threshold; the AUC is the area under it."""
    limit = reach(scores)
    errors = sorted(pair.error for pair in scores.pairs if pair.error is not None)
    curve = []
    for k in range(POINTS + 1):
        at = limit * k / POINTS
        curve.append((at, 100.0 * sum(error <= at for error in errors) / max(len(scores.pairs), 1)))
    return curve


def couples(before: Scores, after: Scores) -> list[tuple[float, float]]:
    """Return the errors of both on each pair that both have, inf where no model was found."""
    own = {pair.name: pair for pair in after.pairs}
    return [(_error(pair), _error(own[pair.name])) for pair in before.pairs if pair.name in own]


def changed_most(
    before: Sequence[PairScore], after: Sequence[PairScore], limit: float, n: int
) -> tuple[list[int], list[int]]:
    """Return the numbers of the ``n`` most improved pairs and of the ``n`` that lost most, the largest change first.

    Errors beyond ``limit`` count as ``limit``: whether a lost pair is off by 30 or by 90 says nothing.
    """
    gains = [min(_error(b), limit) - min(_error(a), limit) for b, a in zip(before, after, strict=True)]
    order = sorted(range(len(gains)), key=lambda k: (-gains[k], k))
    return [k for k in order[:n] if gains[k] > 0], [k for k in order[::-1][:n] if gains[k] < 0]


def farthest_off(pairs: Sequence[PairScore], n: int) -> list[int]:
    """Return the numbers of the ``n`` pairs with the largest errors, those without a model of the geometry last.

    An error shows what went wrong, the lack of a model only that too few matches agreed.
    """
    found = sorted((k for k, pair in enumerate(pairs) if pair.error is not None), key=lambda k: (-_error(pairs[k]), k))
    return (found + [k for k, pair in enumerate(pairs) if pair.error is None])[:n]


def _error(pair: PairScore) -> float:
    return math.inf if pair.error is None else pair.error
