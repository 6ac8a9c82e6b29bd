"""LightGlue on top of a frozen extractor: XFeat, ALIKED, DISK or SuperPoint."""

from minima_core.matchers.lightglue.matcher import LightGlue

__all__ = ["LightGlue"]
