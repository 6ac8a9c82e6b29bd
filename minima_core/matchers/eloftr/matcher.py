"""The plugin: settings, weights, and the two faces of a matcher, inference and loss."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from minima_core import weights
from minima_core.errors import WeightsError
from minima_core.geometry.cells import CELL, cell_points
from minima_core.io.weights import read_checkpoint
from minima_core.licences import Licence
from minima_core.manifest import file_sha256
from minima_core.matchers._semidense import (
    BORDER,
    CellMatcher,
    cell_area,
    gray,
    match_alike,
    mutual_matches,
    recall,
    surest,
    to_refine,
    unwrapped,
)
from minima_core.matchers.base import Losses, Matcher, Provenance
from minima_core.matchers.eloftr.network import (
    MULTIPLE,
    Size,
    best_pixels,
    build,
    convert,
    match_cells,
    pixel_offset,
    refine,
    subpixel,
)
from minima_core.published import PUBLISHED, REPOSITORIES
from minima_core.types import Matches

if TYPE_CHECKING:
    from minima_core.data.image_pairs import ImageBatch

REPOSITORY = "efficientloftr"
MINIMA_FILE = "minima_eloftr.ckpt"
XFEAT_FILE = "xfeat.pt"


class EfficientLoFTR(CellMatcher):
    """Efficient LoFTR (Wang et al., CVPR 2024), with the layers of transformers."""

    class Params(Matcher.Params):
        """Settings, ``matcher.eloftr`` in params.yaml."""

        size: Size
        published: Literal["outdoor", "minima"]  # the weights that load_published takes
        long_side: Annotated[int, Field(ge=96, multiple_of=MULTIPLE)]  # also the side of training images
        max_keypoints: Annotated[int, Field(ge=1)]  # matches; the surest are kept
        threshold: Annotated[float, Field(ge=0, lt=1)]  # least probability of a match

    params: Params

    def __init__(self, params: Params) -> None:
        super().__init__(params)
        self.network = build(params.size)

    @property
    def reads_gray(self) -> bool:
        """It does."""
        return True

    @property
    def size_multiple(self) -> int:
        """The side of the blocks that attention gathers."""
        return MULTIPLE

    def load_published(self) -> Provenance:
        """Load the official weights: the authors' from the Hugging Face hub, or MINIMA's own file."""
        if self.params.size != "full":
            raise WeightsError(
                f"no weights of size {self.params.size} are published; set matcher.eloftr.size: full, or train it: "
                "training.pretrain.eloftr `mode: train, start: random`"
            )
        if self.params.published == "minima":
            weights.load_strictly(self.network, convert(unwrapped(weights.load(MINIMA_FILE))), MINIMA_FILE)
            return Provenance.of(MINIMA_FILE)
        path = weights.fetch_repository(REPOSITORY) / "model.safetensors"
        weights.load_strictly(self.network, read_checkpoint(path, "remove it"), str(path))
        entry = REPOSITORIES[REPOSITORY]
        return Provenance({f"{entry.repo}@{entry.revision}": file_sha256(path)}, self.terms())

    def load_frozen(self) -> Provenance:
        """Load XFeat's official weights where the network stands on its backbone, which training does change."""
        if self.params.size != "xfeat":
            return super().load_frozen()
        network: Any = self.network  # its parts have no types
        network.efficientloftr.backbone.load(weights.load(XFEAT_FILE), XFEAT_FILE)
        return Provenance.of(XFEAT_FILE)

    def groups(self) -> dict[str, list[nn.Parameter]]:
        """Return the backbone, which may have learnt before, and what matches its features."""
        network: Any = self.network
        backbone = list(network.efficientloftr.backbone.parameters())
        known = {id(parameter) for parameter in backbone}
        return {"backbone": backbone, "matching": [p for p in self.trainable() if id(p) not in known]}

    def terms(self) -> Licence:
        """Return the licence of the weights that ``published`` names, or of the backbone where it is XFeat's."""
        if self.params.size == "xfeat":
            return PUBLISHED[XFEAT_FILE].licence
        if self.params.published == "minima":
            return PUBLISHED[MINIMA_FILE].licence
        return REPOSITORIES[REPOSITORY].licence

    def _match(
        self, images0: Sequence[torch.Tensor], images1: Sequence[torch.Tensor], max_keypoints: int
    ) -> list[Matches]:
        return match_alike(partial(self._match_alike, max_keypoints), images0, images1)

    def _match_alike(self, max_keypoints: int, image0: torch.Tensor, image1: torch.Tensor) -> list[Matches]:
        """Match (B, 3, H, W) images; both sides are padded to one size."""
        h, w = (max(sides) for sides in zip(image0.shape[2:], image1.shape[2:], strict=True))
        padded = [F.pad(gray(i), (0, w - i.shape[3], 0, h - i.shape[2])) for i in (image0, image1)]
        masks = [cell_area(image, h, w).flatten(1).expand(len(image), -1) for image in (image0, image1)]
        coarse = match_cells(self.network, *padded, *masks)
        ids, scores = mutual_matches(coarse.confidence, self.params.threshold)
        inner0, inner1 = (cell_area(image, h, w, BORDER).flatten() for image in (image0, image1))
        allowed = torch.where(inner0[ids[1]] & inner1[ids[2]])[0]
        kept = surest(scores[allowed], ids[0][allowed], max_keypoints, len(image0))
        numbers = [len(some) for some in kept]
        b_ids, i_ids, j_ids, scores = (part[allowed[torch.cat(kept)]] for part in (*ids, scores))
        if not len(b_ids):
            return [Matches.empty()] * len(image0)
        fine = refine(self.network, coarse, (b_ids, i_ids, j_ids))
        pixel0, pixel1 = best_pixels(fine)
        points = cell_points(h // CELL, w // CELL, image0.device)
        part = subpixel(fine, torch.arange(len(b_ids), device=b_ids.device), pixel0, pixel1)
        mkpts0, mkpts1 = points[i_ids] + pixel_offset(pixel0), points[j_ids] + pixel_offset(pixel1) + part
        of_pairs = zip(*(torch.split(values, numbers) for values in (mkpts0, mkpts1, scores)), strict=True)
        return [Matches(*found) for found in of_pairs]

    def compiled(self) -> list[nn.Module]:
        """Return the backbone with the transformer."""
        network: Any = self.network  # its parts have no types
        return [network.efficientloftr]

    def loss(self, batch: ImageBatch) -> Losses:
        """Return the focal loss of the cells plus the losses of the refined matches."""
        from minima_core.matchers.eloftr.loss import PART_WEIGHT, fine_losses, fine_targets
        from minima_core.supervision.coarse import coarse_targets, focal_loss

        batch = batch.to(next(self.network.parameters()).device)
        targets = coarse_targets(batch)
        coarse = match_cells(self.network, gray(batch.image0), gray(batch.image1), targets.mask0, targets.mask1)
        ids = to_refine(coarse.confidence, self.params.threshold, targets)
        cells = focal_loss(coarse.confidence, targets).mean()
        fine = refine(self.network, coarse, ids)
        pixel, part = (loss.mean() for loss in fine_losses(fine, fine_targets(batch, ids), ids[0], len(batch)))
        parts = {"coarse": float(cells.detach()), "pixel": float(pixel.detach()), "part": float(part.detach())}
        total = cells + pixel + PART_WEIGHT * part
        return Losses(total, parts | {"recall": recall(coarse.confidence, targets)})
