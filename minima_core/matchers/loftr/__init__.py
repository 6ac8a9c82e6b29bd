"""LoFTR: matches the cells of two images, then refines each match in a small window."""

from minima_core.matchers.loftr.matcher import LoFTR

__all__ = ["LoFTR"]
