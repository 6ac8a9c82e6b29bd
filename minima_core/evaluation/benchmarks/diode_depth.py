"""DIODE, photographs against laser depth drawn in colours, as the data's own devkit draws it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import matplotlib as mpl
import numpy as np

from minima_core.evaluation.benchmarks._diode import Diode, read_npy

NEAR, FAR = 0.5, 300.0  # metres


class DiodeDepth(Diode):
    """446 photographs, 892 pairs; pictures in ``val/outdoor_depth`` are taken as they are, others are drawn here."""

    kind: ClassVar[str] = "depth"
    source: ClassVar[str] = "diode_val"

    @staticmethod
    def draw(path: Path) -> np.ndarray:
        """Return depth as colours (jet over its logarithm), black where the laser saw nothing."""
        depth = read_npy(path, 1)[..., 0]
        valid = read_npy(path.with_name(f"{path.stem}_mask.npy"), 1)[..., 0] > 0
        far = max(min(FAR, float(np.percentile(depth, 99))), 2 * NEAR)
        log = np.log(np.clip(depth, NEAR, far))
        low = log[valid].min() if valid.any() else 0.0
        colours = mpl.colormaps["jet"]((log - low) / max(np.log(far) - low, 1e-9), bytes=True)[..., :3]
        return np.ascontiguousarray(np.where(valid[..., None], colours, 0))
