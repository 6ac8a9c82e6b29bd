"""XFeat with mutual nearest neighbours, as its authors match it without LighterGlue: a rival with nothing to train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import nn

from minima_core.licences import Licence
from minima_core.matchers.base import Matcher, Provenance
from minima_core.matchers.lightglue.extractors import Features
from minima_core.matchers.lightglue.extractors import XFeat as Extractor
from minima_core.published import PUBLISHED
from minima_core.types import Matches


class XFeat(Matcher):
    """Keypoints whose descriptors are each other's most similar (Potje et al., CVPR 2024)."""

    class Params(Matcher.Params):
        """Settings."""

        similarity: float = Field(ge=-1, le=1)  # least cosine of two descriptors

    params: Params
    sparse: ClassVar[bool] = True

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self.extractor = Extractor().freeze()

    @property
    def size_multiple(self) -> int:
        """The extractor's."""
        return self.extractor.SIZE_MULTIPLE

    def terms(self) -> Licence:
        """Return the licence of the official weights."""
        return PUBLISHED[Extractor.FILE].licence

    def load_published(self) -> Provenance:
        """Load the official weights."""
        self.extractor.load_published()
        return Provenance.of(Extractor.FILE)

    def _extract(self, image: torch.Tensor, max_keypoints: int) -> Features:
        return self.extractor.extract(image, max_keypoints)

    def _match(self, found0: Sequence[Features], found1: Sequence[Features], max_keypoints: int) -> list[Matches]:  # noqa: ARG002 (see _extract)
        return [self._match_pair(*pair) for pair in zip(found0, found1, strict=True)]

    def _match_pair(self, found0: Features, found1: Features) -> Matches:
        if not len(found0.kpts) or not len(found1.kpts):
            return Matches.empty()
        similarity = found0.desc @ found1.desc.T
        best, j = similarity.max(1)
        i = torch.arange(len(j), device=j.device)
        good = (similarity.argmax(0)[j] == i) & (best >= self.params.similarity)
        return Matches(found0.kpts[good], found1.kpts[j[good]], best[good].clamp(0, 1))

    def compiled(self) -> list[nn.Module]:
        """Return XFeat's network."""
        features: Any = self.extractor.net  # its parts have no types
        return [features.net]
