"""DIODE, photographs against the normals of the surfaces in them, drawn in colours."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np

from minima_core.evaluation.benchmarks._diode import Diode, read_npy


class DiodeNormal(Diode):
    """As ``diode_depth``; the paper has no such figure. Pictures are in ``val/outdoor_normal``, or are drawn here."""

    kind: ClassVar[str] = "normal"
    source: ClassVar[str] = "diode_val_normals"

    @staticmethod
    def draw(path: Path) -> np.ndarray:
        """Return the three components of unit normals as colours, black where there is none."""
        normal = read_npy(path, 3)
        known = np.linalg.norm(normal, axis=-1, keepdims=True) > 0.5
        return np.where(known, np.round((normal + 1) * 127.5).clip(0, 255), 0).astype(np.uint8)
