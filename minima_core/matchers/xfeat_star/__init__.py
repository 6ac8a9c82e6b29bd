"""XFeat*: matches XFeat's cells by their descriptors alone, then says where in its cell each match lies."""

from minima_core.matchers.xfeat_star.matcher import XFeatStar

__all__ = ["XFeatStar"]
