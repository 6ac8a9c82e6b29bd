"""MINIMA's published depth of MegaDepth (MegaDepth-Syn)."""

from __future__ import annotations

from typing import ClassVar

from minima_core.licences import CC_BY_NC_4_0, Licence
from minima_core.synthesis._brought import Brought


class PublishedDepth(Brought):
    """Read from beside the photograph, where the data set ``megadepth_syn`` puts them."""

    licence: ClassVar[Licence] = CC_BY_NC_4_0  # of Depth Anything V2, large
