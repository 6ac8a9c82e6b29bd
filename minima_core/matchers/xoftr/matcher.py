"""The plugin: settings, weights, and how two images are matched; a rival, nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from minima_core.errors import WeightsError
from minima_core.geometry.cells import CELL, cell_points
from minima_core.licences import Licence
from minima_core.matchers._semidense import BORDER, cell_area, gray, load_checkpoint, match_alike, surest
from minima_core.matchers.base import Matcher, Provenance
from minima_core.matchers.xoftr.network import Network, Size, either_way, match_cells, refine
from minima_core.published import PUBLISHED
from minima_core.types import Matches

FILES = {"640": "weights_xoftr_640.ckpt", "minima": "minima_xoftr.ckpt"}


class XoFTR(Matcher):
    """XoFTR, cross-modal matching of visible and thermal images (Tuzcuoglu et al., CVPR Workshops 2024)."""

    class Params(Matcher.Params):
        """Settings."""

        size: Size  # "small" is for tests and has no published weights
        published: Literal["640", "minima"]  # the weights that load_published takes
        long_side: Annotated[int, Field(ge=64, multiple_of=CELL)]
        max_keypoints: Annotated[int, Field(ge=1)]  # matches; the surest are kept
        threshold: Annotated[float, Field(ge=0, lt=1)]  # least probability of a match of cells, in one direction
        fine_threshold: Annotated[float, Field(ge=0, lt=1)]  # least probability of a match

    params: Params

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self.network = Network(params.size)

    @property
    def reads_gray(self) -> bool:
        """It does."""
        return True

    @property
    def size_multiple(self) -> int:
        """The cell's side."""
        return CELL

    def terms(self) -> Licence:
        """Return the licence of the weights that ``published`` names."""
        return PUBLISHED[FILES[self.params.published]].licence

    def load_published(self) -> Provenance:
        """Load the official weights that ``published`` names."""
        if self.params.size != "full":
            raise WeightsError(f"no weights of size {self.params.size} are published; use it by name, --model xoftr")
        file = FILES[self.params.published]
        load_checkpoint(self.network, file)
        return Provenance.of(file)

    def _match(
        self, images0: Sequence[torch.Tensor], images1: Sequence[torch.Tensor], max_keypoints: int
    ) -> list[Matches]:
        return match_alike(partial(self._match_alike, max_keypoints), images0, images1)

    def _match_alike(self, max_keypoints: int, image0: torch.Tensor, image1: torch.Tensor) -> list[Matches]:
        """Match (B, 3, H, W) images."""
        (h0, w0), (h1, w1) = image0.shape[2:], image1.shape[2:]
        view0, view1, similarities = match_cells(self.network, gray(image0), gray(image1))
        inner0, inner1 = cell_area(image0, h0, w0, BORDER).flatten(), cell_area(image1, h1, w1, BORDER).flatten()
        ids = either_way(similarities, self.params.threshold, inner0, inner1)
        if not len(ids[0]):
            return [Matches.empty()] * len(image0)
        fine = refine(self.network, view0, view1, ids)
        mkpts0 = cell_points(h0 // CELL, w0 // CELL, image0.device)[ids[1]] + fine.offset0
        mkpts1 = cell_points(h1 // CELL, w1 // CELL, image1.device)[ids[2]] + fine.offset1
        sure = torch.where(fine.scores > self.params.fine_threshold)[0]
        kept = [sure[some] for some in surest(fine.scores[sure], ids[0][sure], max_keypoints, len(image0))]
        return [Matches(mkpts0[some], mkpts1[some], fine.scores[some]) for some in kept]

    def compiled(self) -> list[nn.Module]:
        """Return the backbone, the transformer and the refinement."""
        return [self.network.backbone, self.network.loftr_coarse, self.network.fine_process]
