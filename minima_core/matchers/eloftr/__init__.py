"""Efficient LoFTR: matches the cells of two images, then the pixels of two matched cells, then a part of a pixel."""

from minima_core.matchers.eloftr.matcher import EfficientLoFTR

__all__ = ["EfficientLoFTR"]
