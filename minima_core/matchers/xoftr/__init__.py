"""XoFTR: matches the cells of two images in either direction, then half pixels in a window around each: a rival."""

from minima_core.matchers.xoftr.matcher import XoFTR

__all__ = ["XoFTR"]
