"""LightGlue on top of a frozen extractor: XFeat, ALIKED or DISK."""

from minima_core.matchers.lightglue.matcher import LightGlue

__all__ = ["LightGlue"]
