"""What matchers share that first match the cells of two images and then refine each match."""

from __future__ import annotations

from abc import ABC
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from minima_core import weights
from minima_core.geometry.cells import CELL
from minima_core.matchers.base import Matcher
from minima_core.types import Matches

if TYPE_CHECKING:
    from minima_core.data.image_pairs import ImagePairs
    from minima_core.data.pairs import PairSource
    from minima_core.supervision.coarse import CoarseTargets

Ids = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # (M,) pair of the batch, cell of image 0, cell of image 1
LUMA = (0.299, 0.587, 0.114)
BORDER = 2  # cells at an image's edge that are not matched
FINE_SHARE = 0.3  # of the cells, the most matches that are refined in training
MIN_TRUE = 200  # of these, how many are kept for true matches
EPS = 1e-5  # added to the variance of an image, as InstanceNorm2d does


class CellMatcher(Matcher, ABC):
    """A matcher that learns from whole images, every cell of which is supervised."""

    @property
    def training_multiple(self) -> int:
        """Both sides of a training image's area are floored to a multiple of this."""
        return self.size_multiple

    def training_data(
        self,
        pairs: PairSource,
        *,
        max_keypoints: int,  # noqa: ARG002 (every cell is supervised)
        cache: Path,
        workers: int,
    ) -> ImagePairs:
        """Return samples whose longer side is ``long_side``, padded to squares."""
        from minima_core.data.image_pairs import ImagePairs  # matching needs nothing of what training does

        side, multiple = self.params.long_side, self.training_multiple
        return ImagePairs(pairs, side=side, fit="pad", multiple=multiple, cache=cache, workers=workers)


def gray(image: torch.Tensor) -> torch.Tensor:
    """Return (B, 1, H, W) of (B, 3, H, W) RGB."""
    return torch.einsum("bchw,c->bhw", image, image.new_tensor(LUMA))[:, None]


def normalised(images: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Return (B, 1, H, W), as XFeat is given images: (B, C, H, W) ones' mean over the channels, moved and scaled.

    Its mean is 0 and its variance 1 where the (B, H, W) masks say; elsewhere it is zero.
    """
    mono, real = images.mean(1, keepdim=True), masks[:, None].float()
    count = real.sum((2, 3), keepdim=True).clamp(min=1)
    centred = (mono - (mono * real).sum((2, 3), keepdim=True) / count) * real
    variance = centred.square().sum((2, 3), keepdim=True) / count
    return centred / (variance + EPS).sqrt()


def match_alike(
    match: Callable[[torch.Tensor, torch.Tensor], list[Matches]],
    images0: Sequence[torch.Tensor],
    images1: Sequence[torch.Tensor],
) -> list[Matches]:
    """Return the matches of pairs of (3, H, W) images; those of the same two sizes are given to ``match`` together.

    What is padded to a common size is seen otherwise near its edges: a pair's matches would depend on the others.
    """
    sizes = [(image0.shape, image1.shape) for image0, image1 in zip(images0, images1, strict=True)]
    matches = [Matches.empty()] * len(sizes)
    for size in dict.fromkeys(sizes):
        alike = [n for n, other in enumerate(sizes) if other == size]
        both = (torch.stack([images[n] for n in alike]) for images in (images0, images1))
        for n, found in zip(alike, match(*both), strict=True):
            matches[n] = found
    return matches


def surest(scores: torch.Tensor, b_ids: torch.Tensor, number: int, pairs: int) -> list[torch.Tensor]:
    """Return for each of ``pairs`` the indices of its matches, at most ``number``, the surest first."""
    order = scores.argsort(descending=True, stable=True)
    return [order[b_ids[order] == b][:number] for b in range(pairs)]


def similarity(tokens0: torch.Tensor, tokens1: torch.Tensor) -> torch.Tensor:
    """Return (B, L, N) similarities of (B, L, C) and (B, N, C) tokens, single precision whatever theirs is.

    They are divided by the published temperature, 0.1.
    """
    tokens0, tokens1 = (tokens.float() / tokens.shape[-1] ** 0.5 for tokens in (tokens0, tokens1))
    with torch.autocast(tokens0.device.type, enabled=False):
        return tokens0 @ tokens1.mT / 0.1


def dual_softmax(
    tokens0: torch.Tensor, tokens1: torch.Tensor, mask0: torch.Tensor, mask1: torch.Tensor
) -> torch.Tensor:
    """Return (B, L, N) match probabilities of (B, L, C) and (B, N, C) tokens, of their ``similarity``.

    The (B, L) and (B, N) masks are False where padded.
    """
    real = mask0[:, :, None] & mask1[:, None, :]
    logits = similarity(tokens0, tokens1).masked_fill(~real, -1e9)
    # a row that is padding throughout is even, not zero
    return (logits.softmax(1) * logits.softmax(2)).masked_fill(~real, 0.0)


def cell_area(image: torch.Tensor, h: int, w: int, border: int = 0) -> torch.Tensor:
    """Return the (1, h / 8, w / 8) mask of (B, 3, H, W) images' cells that are ``border`` cells from the edge."""
    mask = torch.zeros(1, h // CELL, w // CELL, dtype=torch.bool, device=image.device)
    mask[:, border : image.shape[2] // CELL - border, border : image.shape[3] // CELL - border] = True
    return mask


def windows(
    features: torch.Tensor,
    b_ids: torch.Tensor,
    cells: torch.Tensor,
    width: int,
    *,
    stride: int,
    size: int,
    margin: int,
) -> torch.Tensor:
    """Return (M, size * size, C): squares of (B, C, H, W) features that belong to cells, row by row.

    There are ``width`` cells in a row. A square begins ``stride`` features after the one before it, the first
    ``margin`` features outside the map, where there are zeros.
    """
    padded = F.pad(features, (margin,) * 4)
    reach = torch.arange(size, device=cells.device)
    rows = (cells // width * stride)[:, None] + reach
    columns = (cells % width * stride)[:, None] + reach
    return padded[b_ids[:, None, None], :, rows[:, :, None], columns[:, None, :]].flatten(1, 2)


def mutual_matches(confidence: torch.Tensor, threshold: float) -> tuple[Ids, torch.Tensor]:
    """Return the matches whose (B, L, N) probability is highest in row and column and above ``threshold``; and it."""
    best, partner = confidence.max(2)
    mutual = (best > threshold) & (confidence.amax(1).gather(1, partner) == best)
    b_ids, i_ids = torch.where(mutual)
    return (b_ids, i_ids, partner[b_ids, i_ids]), best[b_ids, i_ids]


@torch.no_grad()
def to_refine(confidence: torch.Tensor, threshold: float, targets: CoarseTargets) -> Ids:
    """Return which matches the fine stage learns from: what was found, filled up with true matches.

    At most ``FINE_SHARE`` of the batch's cells, of which true matches get at least ``MIN_TRUE`` or half. Where there
    are too many, every n-th is taken: a sample without chance.
    """
    limit = max(1, int(FINE_SHARE * confidence.shape[0] * confidence.shape[1]))
    found, _ = mutual_matches(confidence, threshold)
    found = _thinned(found, limit - min(MIN_TRUE, limit // 2))
    true = _thinned(targets.matches(), limit - len(found[0]))
    b_ids, i_ids, j_ids = (torch.cat(both) for both in zip(found, true, strict=True))
    return b_ids, i_ids, j_ids


def _thinned(ids: Ids, most: int) -> Ids:
    n = len(ids[0])
    if n <= most:
        return ids
    kept = torch.arange(most, device=ids[0].device) * n // most
    return ids[0][kept], ids[1][kept], ids[2][kept]


@torch.no_grad()
def recall(confidence: torch.Tensor, targets: CoarseTargets) -> float:
    """Return the share of true matches whose cell in image 1 is the most probable one; 0 where there are none."""
    b_ids, i_ids, j_ids = targets.matches()
    right = confidence[b_ids, i_ids].argmax(1) == j_ids if len(b_ids) else j_ids.bool()
    return float(right.sum() / max(len(b_ids), 1))


def load_checkpoint(net: nn.Module, file: str) -> None:
    """Load the published checkpoint ``file`` into ``net``.

    Raises:
        WeightsError: if it cannot be had or does not fit.
    """
    weights.load_strictly(net, unwrapped(weights.load(file)), file)


def unwrapped(checkpoint: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """Return the network of a Lightning checkpoint: under ``state_dict``, each name after ``matcher.``."""
    state = checkpoint.get("state_dict", checkpoint)
    return {name.removeprefix("matcher."): tensor for name, tensor in state.items()}
