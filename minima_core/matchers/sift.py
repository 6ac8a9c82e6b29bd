"""SIFT with Lowe's ratio test, by OpenCV: the rival that needs no training and no weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np
import torch
from pydantic import Field

from minima_core.licences import APACHE_2_0, Licence
from minima_core.matchers.base import Matcher, Provenance
from minima_core.types import Matches


@dataclass(frozen=True)
class Found:
    """The keypoints of one image: (N, 2) float32 pixels and (N, 128) float32 descriptors."""

    kpts: np.ndarray
    desc: np.ndarray


class Sift(Matcher):
    """Nearest neighbours both ways whose second best is clearly farther (Lowe, IJCV 2004)."""

    class Params(Matcher.Params):
        """Settings."""

        ratio: float = Field(gt=0, le=1)  # of the distances to the best and the second best

    params: Params
    sparse: ClassVar[bool] = True

    def terms(self) -> Licence:
        """OpenCV's."""
        return APACHE_2_0

    def load_published(self) -> Provenance:
        """There are no weights."""
        return Provenance({}, self.terms())

    def _extract(self, image: torch.Tensor, max_keypoints: int) -> Found:
        pixels = (image.permute(1, 2, 0) * 255).round().byte().cpu().numpy()
        gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
        kpts, desc = cv2.SIFT.create(nfeatures=max_keypoints).detectAndCompute(gray, None)
        if desc is None:
            return Found(np.zeros((0, 2), np.float32), np.zeros((0, 128), np.float32))
        return Found(np.array([k.pt for k in kpts], np.float32), desc)

    def _match(self, found0: Sequence[Found], found1: Sequence[Found], max_keypoints: int) -> list[Matches]:  # noqa: ARG002 (see _extract)
        return [self._match_pair(*pair) for pair in zip(found0, found1, strict=True)]

    def _match_pair(self, found0: Found, found1: Found) -> Matches:
        if min(len(found0.kpts), len(found1.kpts)) < 2:  # there is no second best
            return Matches.empty()
        nearest = cv2.BFMatcher().knnMatch(found0.desc, found1.desc, k=2)
        back = np.array([m.trainIdx for m in cv2.BFMatcher().match(found1.desc, found0.desc)])
        ratios = np.array([best.distance / max(second.distance, 1e-9) for best, second in nearest])
        i, j = np.arange(len(nearest)), np.array([best.trainIdx for best, _ in nearest])
        good = (ratios < self.params.ratio) & (back[j] == i)
        mkpts0, mkpts1 = (torch.from_numpy(found.kpts[k[good]]) for found, k in ((found0, i), (found1, j)))
        return Matches(mkpts0, mkpts1, torch.from_numpy(1 - ratios[good]).float())
