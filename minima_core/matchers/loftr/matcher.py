"""The plugin: settings, weights, and the two faces of a matcher, inference and loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from minima_core.errors import WeightsError
from minima_core.geometry.cells import CELL
from minima_core.geometry.coords import from_corner_origin
from minima_core.licences import Licence
from minima_core.matchers._semidense import CellMatcher, gray, load_checkpoint, match_alike, recall, surest, to_refine
from minima_core.matchers.base import Losses, Matcher, Provenance
from minima_core.matchers.loftr.network import FINE, RADIUS, Positions, Size, build, match_cells, refine
from minima_core.published import PUBLISHED
from minima_core.types import Matches

if TYPE_CHECKING:
    from minima_core.data.image_pairs import ImageBatch

FILES = {"outdoor": "outdoor_ds.ckpt", "minima": "minima_loftr.ckpt"}


class LoFTR(CellMatcher):
    """LoFTR (Sun et al., CVPR 2021), with dual softmax, as kornia has it."""

    class Params(Matcher.Params):
        """Settings, ``matcher.loftr`` in params.yaml."""

        size: Size
        positions: Positions
        published: Literal["outdoor", "minima"]  # the weights that load_published takes
        long_side: Annotated[int, Field(ge=64, multiple_of=CELL)]  # also the side of training images
        max_keypoints: Annotated[int, Field(ge=1)]  # matches; the surest are kept
        threshold: Annotated[float, Field(ge=0, lt=1)]  # least probability of a match

    params: Params

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self.network = build(params.size, params.positions, params.threshold)

    @property
    def reads_gray(self) -> bool:
        """It does."""
        return True

    @property
    def size_multiple(self) -> int:
        """The cell's side."""
        return CELL

    def load_published(self) -> Provenance:
        """Load the official weights that ``published`` names; the positions stay those of the settings."""
        if self.params.size != "full":
            raise WeightsError(
                f"there are no published weights of size {self.params.size}; set matcher.loftr.size: full"
            )
        file = FILES[self.params.published]
        load_checkpoint(self.network, file)
        return Provenance.of(file)

    def terms(self) -> Licence:
        """Return the licence of the weights that ``published`` names."""
        return PUBLISHED[FILES[self.params.published]].licence

    def _match(
        self, images0: Sequence[torch.Tensor], images1: Sequence[torch.Tensor], max_keypoints: int
    ) -> list[Matches]:
        def match(image0: torch.Tensor, image1: torch.Tensor) -> list[Matches]:
            found = self.network({"image0": gray(image0), "image1": gray(image1)})
            # the cell (x, y) is the point (8x, 8y) counted from the corner, in the weights as in our supervision
            mkpts0, mkpts1 = (from_corner_origin(found[f"keypoints{n}"]) for n in (0, 1))
            scores = found["confidence"]
            kept = surest(scores, found["batch_indexes"], max_keypoints, len(image0))
            return [Matches(mkpts0[m], mkpts1[m], scores[m]) for m in kept]

        return match_alike(match, images0, images1)

    def compiled(self) -> list[nn.Module]:
        """Return the backbone and both transformers."""
        return [self.network.backbone, self.network.loftr_coarse, self.network.loftr_fine]

    def loss(self, batch: ImageBatch) -> Losses:
        """Return the focal loss of the cells plus the loss of the refined matches."""
        from minima_core.matchers.loftr.loss import SPREAD, fine_loss, fine_offsets
        from minima_core.supervision.coarse import coarse_targets, focal_loss

        batch = batch.to(next(self.network.parameters()).device)
        targets = coarse_targets(batch)
        coarse = match_cells(self.network, gray(batch.image0), gray(batch.image1), targets.mask0, targets.mask1)
        ids = to_refine(coarse.confidence, self.params.threshold, targets)
        expected = refine(self.network, coarse, ids)
        offsets, used = fine_offsets(targets, ids, reach=FINE * RADIUS)
        cells = focal_loss(coarse.confidence, targets).mean()
        least = SPREAD[self.params.size]
        refined = fine_loss(expected[used], offsets[used], ids[0][used], len(batch), least=least).mean()
        parts = {"coarse": float(cells.detach()), "fine": float(refined.detach())}
        return Losses(cells + refined, parts | {"recall": recall(coarse.confidence, targets)})
