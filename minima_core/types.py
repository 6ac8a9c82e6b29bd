"""What moves through memory: views, pairs, matches. Shapes are in the docstrings and checked at the border."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from minima_core.errors import DataError

RGB = "rgb"
UNMATCHED = -1  # a keypoint that has no partner
IGNORE = -2  # a keypoint about which the ground truth says nothing


@dataclass(frozen=True)
class View:
    """One image with its camera.

    Attributes:
        image: (3, H, W) RGB float in [0, 1].
        modality: ``"rgb"`` or the name of a synthesised modality.
        name: id of the image, ``scene/stem``.
        K: (3, 3) float64 intrinsics in this image's pixels, or None.
        T_w2c: (4, 4) float64 world to camera, or None.
        depth: (H, W) float32, 0 where unknown, or None.
    """

    image: torch.Tensor
    modality: str
    name: str
    K: torch.Tensor | None = None
    T_w2c: torch.Tensor | None = None
    depth: torch.Tensor | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return int(self.image.shape[-1]), int(self.image.shape[-2])


@dataclass(frozen=True)
class Pair:
    """Two views and what relates them: ``T_0to1`` (with depth in the views) or ``H_0to1``.

    Attributes:
        view0: first view.
        view1: second view.
        T_0to1: (4, 4) float64 with x1 = R x0 + t, or None.
        H_0to1: (3, 3) float64 pixels of view 0 to pixels of view 1, or None.
        overlap: share of view 0 that view 1 sees.
    """

    view0: View
    view1: View
    T_0to1: torch.Tensor | None = None
    H_0to1: torch.Tensor | None = None
    overlap: float = 1.0

    def __post_init__(self) -> None:
        if (self.T_0to1 is None) == (self.H_0to1 is None):
            raise DataError(f"pair {self.view0.name} - {self.view1.name} needs either a pose or a homography")

    def swap(self) -> Pair:
        """Return the pair seen from the other side."""
        return Pair(
            self.view1,
            self.view0,
            None if self.T_0to1 is None else torch.linalg.inv(self.T_0to1),
            None if self.H_0to1 is None else torch.linalg.inv(self.H_0to1),
            self.overlap,
        )


@dataclass(frozen=True, repr=False)
class Matches:
    """The matches of one pair, in original pixels.

    Attributes:
        mkpts0: (N, 2) float32 (x, y) in image 0.
        mkpts1: (N, 2) float32 (x, y) in image 1.
        scores: (N,) float32 in [0, 1], higher is surer.
    """

    mkpts0: torch.Tensor
    mkpts1: torch.Tensor
    scores: torch.Tensor

    def __post_init__(self) -> None:
        n = self.scores.shape[0]
        if self.mkpts0.shape != (n, 2) or self.mkpts1.shape != (n, 2):
            raise ValueError(f"{tuple(self.mkpts0.shape)}, {tuple(self.mkpts1.shape)} and ({n},) are no matches")

    def __len__(self) -> int:
        """Return how many matches there are."""
        return int(self.scores.shape[0])

    def __repr__(self) -> str:
        """Say how many there are and how sure; their numbers would fill pages."""
        sure = f", scores {self.scores.min():.2f} to {self.scores.max():.2f}" if len(self) else ""
        return f"{type(self).__name__}({len(self)} matches{sure})"

    def __reduce__(self) -> tuple[Callable[..., Matches], tuple[np.ndarray, ...]]:
        """Be pickled as arrays: tensors take five times as long, together a sixth of what scoring a pair takes."""
        return _of_arrays, tuple(part.detach().cpu().numpy() for part in (self.mkpts0, self.mkpts1, self.scores))

    @classmethod
    def empty(cls) -> Matches:
        """Return no matches."""
        return cls(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0))


def _of_arrays(*parts: np.ndarray) -> Matches:
    return Matches(*(torch.from_numpy(part) for part in parts))
