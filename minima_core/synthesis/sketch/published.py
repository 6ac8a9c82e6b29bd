"""MINIMA's published sketches of MegaDepth (MegaDepth-Syn)."""

from __future__ import annotations

from typing import ClassVar

from minima_core.licences import MIT, Licence
from minima_core.synthesis._brought import Brought


class PublishedSketch(Brought):
    """Read from beside the photograph, where the data set ``megadepth_syn`` puts them."""

    licence: ClassVar[Licence] = MIT  # of Anime2Sketch
