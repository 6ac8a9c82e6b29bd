"""How far a figure may be chance: bootstrap intervals over the pairs of a benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from minima_core.evaluation.metrics import Metrics
from minima_core.random import rng

Intervals = dict[str, tuple[float, float]]
RESAMPLES = 1000
INSIDE = 0.95


def intervals(
    rows: Mapping[str, np.ndarray], figure: Callable[[Mapping[str, np.ndarray]], Metrics], *, name: str
) -> Intervals:
    """Return for each metric the interval that holds the middle 95 % of it over resampled pairs.

    Pairs are drawn with replacement within their category, so that every category keeps its size. The draws depend on
    ``name`` and on the order of the pairs alone.

    Args:
        rows: by category, an array whose first axis is the pairs.
        figure: from such rows to metrics.
        name: what the draws are for, a benchmark's name.
    """
    if not rows:
        return {}
    random = rng(0, "bootstrap", name)
    found = [
        figure({category: own[random.integers(0, len(own), len(own))] for category, own in rows.items()})
        for _ in range(RESAMPLES)
    ]
    ends = (1 - INSIDE) / 2, (1 + INSIDE) / 2
    spans = {metric: np.quantile([row[metric] for row in found], ends) for metric in found[0]}
    return {metric: (float(low), float(high)) for metric, (low, high) in spans.items()}
