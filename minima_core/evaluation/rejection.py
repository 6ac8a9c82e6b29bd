"""How well a matcher tells pairs that show one place from pairs that do not: false accepts, and AUROC."""

from __future__ import annotations

import numpy as np

from minima_core.evaluation.metrics import Metrics

ACCEPTED = (15, 30, 60)  # inliers from which a pair counts as found; 15 is what COLMAP asks for


def rejection_metrics(related: np.ndarray, inliers: np.ndarray, confidence: np.ndarray) -> Metrics:
    """Return the metrics, in percent, of N pairs.

    ``far@15`` is the share of unrelated pairs with at least 15 inliers, ``recall@15`` that of related ones. AUROC is
    the chance that a related pair gets more inliers (``auroc_inliers``), or more confidence (``auroc_scores``), than an
    unrelated one; ties count half.

    Args:
        related: (N,) bool, whether the two images show one place.
        inliers: (N,) of the robust estimate.
        confidence: (N,) sum of the scores of all matches, before any geometry.
    """
    metrics: Metrics = {}
    for at in ACCEPTED:
        metrics[f"far@{at}"] = _share(inliers[~related] >= at)
        metrics[f"recall@{at}"] = _share(inliers[related] >= at)
    return metrics | {"auroc_inliers": auroc(related, inliers), "auroc_scores": auroc(related, confidence)}


def auroc(positive: np.ndarray, values: np.ndarray) -> float:
    """Return the area under the ROC curve in percent; 50 where one of the two kinds is missing."""
    related, others = values[positive], np.sort(values[~positive])
    if not len(related) or not len(others):
        return 50.0
    below, not_above = (np.searchsorted(others, related, side) for side in ("left", "right"))
    return 100.0 * float((below + not_above).mean()) / (2 * len(others))


def _share(hits: np.ndarray) -> float:
    return 100.0 * float(hits.mean()) if len(hits) else 0.0
