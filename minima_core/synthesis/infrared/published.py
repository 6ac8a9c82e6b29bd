"""MINIMA's published infrared of MegaDepth (MegaDepth-Syn)."""

from __future__ import annotations

from typing import ClassVar

from minima_core.licences import LLVIP_M3FD, Licence
from minima_core.synthesis._brought import Brought


class PublishedInfrared(Brought):
    """Read from beside the photograph, where the data set ``megadepth_syn`` puts them."""

    licence: ClassVar[Licence] = LLVIP_M3FD  # their StyleBooth adapter saw LLVIP and M3FD
