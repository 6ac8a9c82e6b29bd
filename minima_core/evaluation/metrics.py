"""From errors to numbers: the area under the recall curve, and how it is averaged over pairs and categories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch

from minima_core.geometry.epipolar import fundamental, symmetric_distances
from minima_core.geometry.homography import warp_homography
from minima_core.geometry.pose import rotation_error, translation_error

Metrics = dict[str, float]


def error_auc(errors: Sequence[float] | np.ndarray, thresholds: Sequence[float]) -> list[float]:
    """Return the area under the recall curve up to each threshold, in [0, 1]; spec/evaluation.md section 3.

    Args:
        errors: one number a pair; inf or NaN where the pair failed. Failures count: they keep the recall down.
        thresholds: in the unit of the errors.

    Returns:
        One area a threshold; 0 where there are no errors at all.
    """
    values = np.asarray(errors, dtype=np.float64).ravel()
    ordered = np.concatenate([[0.0], np.sort(np.where(np.isnan(values), np.inf, values))])
    recall = np.linspace(0.0, 1.0, len(ordered))
    areas = []
    for threshold in thresholds:
        below = int(np.searchsorted(ordered, threshold))
        x = np.append(ordered[:below], threshold)
        y = np.append(recall[:below], recall[below - 1])
        areas.append(float(np.trapezoid(y, x) / threshold))
    return areas


def auc_metrics(errors: Sequence[float] | np.ndarray, thresholds: Sequence[float], unit: str = "") -> Metrics:
    """Return ``{"auc@5": percent, ...}``; ``unit`` is appended to the names (``px``)."""
    areas = error_auc(errors, thresholds)
    return {f"auc@{threshold:g}{unit}": 100.0 * area for threshold, area in zip(thresholds, areas, strict=True)}


def macro(metrics: Iterable[Mapping[str, float]]) -> Metrics:
    """Return the mean of each metric over categories, every category counting the same; empty for none."""
    rows = list(metrics)
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]} if rows else {}


def aggregate(
    errors: Mapping[str, Sequence[float] | np.ndarray],
    categories: Iterable[str],
    thresholds: Sequence[float],
    unit: str,
    how: Literal["macro", "pooled"],
) -> Metrics:
    """Return one row for several categories: the mean of their rows (macro), or the row of all their pairs (pooled)."""
    chosen = [errors[name] for name in categories]
    if how == "pooled":
        return auc_metrics([e for rows in chosen for e in rows], thresholds, unit)
    return macro(auc_metrics(rows, thresholds, unit) for rows in chosen)


def pose_error(T_est: torch.Tensor, T_0to1: torch.Tensor) -> float:
    """Return the larger of rotation and direction error in degrees of two (4, 4) relative poses."""
    T_est, T_0to1 = T_est.double(), T_0to1.double()
    R = rotation_error(T_est[:3, :3], T_0to1[:3, :3])
    t = translation_error(T_est[:3, 3], T_0to1[:3, 3])
    worst = float(torch.maximum(R, t))
    return worst if np.isfinite(worst) else float("inf")


def epipolar_errors(
    kpts0: torch.Tensor, kpts1: torch.Tensor, T_0to1: torch.Tensor, K0: torch.Tensor, K1: torch.Tensor
) -> torch.Tensor:
    """Return (N,) distances in pixels of (N, 2) matches to each other's epipolar line, the mean of both images."""
    F_0to1 = fundamental(T_0to1.double(), K0.double(), K1.double())
    return symmetric_distances(kpts0.double()[:, None], kpts1.double()[:, None], F_0to1)[:, 0, 0]  # each with its own


def reprojection_errors(kpts0: torch.Tensor, kpts1: torch.Tensor, H_0to1: torch.Tensor) -> torch.Tensor:
    """Return (N,) distances in pixels of image 1 between H(kpts0) and kpts1, inf for points that H sends away."""
    distance = (warp_homography(H_0to1.double(), kpts0.double()) - kpts1.double()).norm(dim=-1)
    return torch.where(distance.isfinite(), distance, torch.full_like(distance, torch.inf))


def by_threshold(names: Iterable[str]) -> list[str]:
    """Return names of metrics in the order of their thresholds, which are numbers: ``auc@10px`` after ``auc@5px``."""

    def key(name: str) -> tuple[str, float]:
        what, _, at = name.partition("@")
        return what, float("".join(c for c in at if c.isdigit() or c == ".") or 0)

    return sorted(names, key=key)


def headline(names: Iterable[str]) -> str:
    """Return the metric that a single figure is given in: the AUC at the middle threshold, or else the AUROC."""
    ordered = by_threshold(names)
    areas = [name for name in ordered if name.startswith("auc@")]
    return areas[len(areas) // 2] if areas else next((n for n in ordered if n.startswith("auroc")), ordered[0])


def gain(metric: str, before: float, after: float) -> float:
    """Return by how many points ``after`` is better; of false accepts (``far@15``) fewer are."""
    return before - after if metric.startswith("far@") else after - before
