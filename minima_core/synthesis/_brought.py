"""Renditions that somebody else made and the data set brought along, beside each picture."""

from __future__ import annotations

from typing import ClassVar

import cv2
import numpy as np

from minima_core.errors import Unavailable
from minima_core.synthesis.base import Engine, Rendition, Source

ASPECT = 0.02  # by which the sides may differ in their ratio: networks round sizes to multiples


class Brought(Engine):
    """Takes the rendition as it is; one of another size is brought to that of its picture."""

    params: Engine.Params
    reads: ClassVar[frozenset[str]] = frozenset({"rendition"})

    def _synthesise(self, source: Source, rng: np.random.Generator) -> Rendition:  # noqa: ARG002, nothing is drawn
        found = source.rendition
        if found is None:
            raise Unavailable(
                f"no rendition of {source.name} came with the data set; bring it (dataset.name: megadepth_syn) or "
                "take another engine"
            )
        (h, w), (rows, columns) = source.image.shape[:2], found.shape[:2]
        if abs(columns * h / (rows * w) - 1) > ASPECT:
            raise Unavailable(
                f"the rendition of {source.name} has {columns} x {rows} pixels, its picture {w} x {h}; get it again"
            )
        if (rows, columns) != (h, w):
            how = cv2.INTER_AREA if rows > h else cv2.INTER_LINEAR
            found = cv2.resize(found, (w, h), interpolation=how)
        return Rendition(np.ascontiguousarray(found), {"size": [columns, rows]})
