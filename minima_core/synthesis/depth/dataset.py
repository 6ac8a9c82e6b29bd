"""Depth pictures from the data set's own depth maps, in the encoding that a depth network's output gets."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from minima_core.data.materials import Material
from minima_core.errors import Unavailable
from minima_core.synthesis.base import Engine, Rendition, Source
from minima_core.synthesis.depth._spectral import colour


class DatasetDepth(Engine):
    """Inverse depth, stretched over each image's own range (spec/data-engine.md section 3).

    Pixels of unknown depth are black, a colour that the table does not have, and their share is recorded; sky, where
    a material map shows it, is known to be infinitely far.
    """

    params: Engine.Params
    encoding: ClassVar[Literal["png", "jpeg95"]] = "jpeg95"

    def _synthesise(self, source: Source, rng: np.random.Generator) -> Rendition:  # noqa: ARG002, nothing is drawn
        if source.depth is None:
            raise Unavailable(
                f"no depth for {source.name}, which depth/dataset needs; this data set has none, use a depth network "
                "or another set"
            )
        known = source.depth > 0
        if not known.any():
            raise Unavailable(f"the depth of {source.name} is unknown in every pixel; remove the image or mend its map")
        nearness = np.divide(1, source.depth, out=np.zeros_like(source.depth, np.float32), where=known)
        if source.material is not None:
            known = known | (source.material == Material.SKY)
        return Rendition(colour(nearness, known), {"unknown": round(1 - float(known.mean()), 4)})
