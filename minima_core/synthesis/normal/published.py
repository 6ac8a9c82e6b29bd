"""MINIMA's published normals of MegaDepth (MegaDepth-Syn)."""

from __future__ import annotations

from typing import ClassVar

from minima_core.licences import DSINE, Licence
from minima_core.synthesis._brought import Brought


class PublishedNormal(Brought):
    """Read from beside the photograph, where the data set ``megadepth_syn`` puts them."""

    licence: ClassVar[Licence] = DSINE  # of DSINE
