"""MINIMA's published paintings of MegaDepth (MegaDepth-Syn)."""

from __future__ import annotations

from typing import ClassVar

from minima_core.licences import APACHE_2_0, Licence
from minima_core.synthesis._brought import Brought


class PublishedPaint(Brought):
    """Read from beside the photograph, where the data set ``megadepth_syn`` puts them."""

    licence: ClassVar[Licence] = APACHE_2_0  # of Paint Transformer
