"""RoMa: a dense matcher on DINOv2 and VGG features, with a certainty for every pixel."""

from minima_core.matchers.roma.matcher import Roma

__all__ = ["Roma"]
