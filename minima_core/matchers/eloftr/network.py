"""Efficient LoFTR: the layers of transformers, put together here.

The forward of transformers is for inference alone, and where it departs from the paper it is not followed: it lists the
partners of either image in that image's order, so that the two points of a pair belong to different matches; it makes
the fine probabilities sum to one over the matches instead of the windows; it reads the pixels' places along the wrong
axis. Its layers are right, and the parts of its forward that are agree with ours (the tests say which).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from kornia.feature import XFeat
from torch import nn
from torch.nn import functional as F

from minima_core import weights
from minima_core.geometry.cells import CELL
from minima_core.matchers._semidense import Ids, dual_softmax, normalised, windows

Size = Literal["full", "small", "xfeat"]
MULTIPLE = 32  # pixels: attention gathers 4 x 4 cells
WINDOW = CELL  # pixels along a side of the window that belongs to a cell
_SMALL: dict[str, Any] = {
    "stage_num_blocks": [1, 1, 1, 1],
    "out_features": [16, 16, 32, 64],
    "hidden_size": 64,
    "num_attention_layers": 2,
}
_ON_XFEAT = {**_SMALL, "out_features": [16, 16, 24, 64]}
_CONFIGS: dict[Size, dict[str, Any]] = {"full": {}, "small": _SMALL, "xfeat": _ON_XFEAT}
LENGTH = 16.0  # of XFeat's descriptors: similarity() then is 40 times their cosine, which tells most cells apart


class XFeatBackbone(nn.Module):
    """XFeat's convolutions in the place of RepVGG's: a network that need not learn to describe cells from nothing.

    The batch norms keep the statistics of the official weights; a batch of a few pairs says less.
    """

    PARTS = ("skip1", "block1", "block2", "block3", "block4", "block5", "block_fusion")

    def __init__(self, half: int) -> None:
        super().__init__()
        whole: Any = XFeat().net  # its parts have no types
        self.xfeat = nn.ModuleDict({name: getattr(whole, name) for name in self.PARTS})
        self.widen = nn.Sequential(nn.Conv2d(8, half, 3, padding=1), nn.ReLU())

    def load(self, published: dict[str, torch.Tensor], what: str) -> None:
        """Take XFeat's official weights, but for those of its heads.

        Raises:
            WeightsError: if they do not fit.
        """
        state = {name: tensor for name, tensor in published.items() if name.split(".")[0] in self.PARTS}
        weights.load_strictly(self.xfeat, state, what)

    def train(self, mode: bool = True) -> Self:
        """Set the mode of everything but XFeat's."""
        super().train(mode)
        self.xfeat.eval()
        return self

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Return features of (B, 1, H, W) normalised images at a half, a quarter and an eighth of the size."""
        net: Any = self.xfeat
        half = net["block1"][:3](images)
        quarter = net["block2"](net["block1"][3](half) + net["skip1"](images))
        eighth = net["block3"](quarter)
        sixteenth = net["block4"](eighth)
        coarser = sum(
            F.interpolate(each, eighth.shape[2:], mode="bilinear", align_corners=False)
            for each in (sixteenth, net["block5"](sixteenth))
        )
        return [self.widen(half), quarter, LENGTH * F.normalize(net["block_fusion"](eighth + coarser), dim=1)]


def build(size: Size) -> nn.Module:
    """Return the network with random weights.

    ``"small"`` is for training on a CPU, and so is ``"xfeat"``, with the backbone of XFeat. Neither is published.
    The convolutions start as the authors' do. Those of transformers start near zero: features of a variance far below
    what batch normalisation can tell from none. On XFeat, attention starts by changing nothing, so that cells are
    matched as its descriptors say.
    """
    from transformers import EfficientLoFTRConfig, EfficientLoFTRForKeypointMatching  # takes seconds

    net: Any = EfficientLoFTRForKeypointMatching(EfficientLoFTRConfig(**_CONFIGS[size]))
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.ones_(part.weight)
        elif isinstance(part, nn.Conv2d) and part.groups == 1:  # those that gather tokens for attention are not meant
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
    if size == "xfeat":
        net.efficientloftr.backbone = XFeatBackbone(net.config.out_features[1])
        for layer in net.efficientloftr.local_feature_transformer.layers:
            for attention in (layer.self_attention, layer.cross_attention):
                nn.init.zeros_(attention.mlp.layer_norm.weight)
    built: nn.Module = net
    return built


_ATTENTION = r"loftr_coarse\.layers\.(\d+)\."  # self-attention and cross-attention by turns
_AUTHORS_NAMES: tuple[tuple[str, str], ...] = (  # patterns of theirs, what transformers calls it
    (r"backbone\.layer0\.", "backbone.layer0.0."),
    (r"backbone\.layer(\d)\.(\d+)\.", r"efficientloftr.backbone.stages.\1.blocks.\2."),
    (r"\brbr_dense\.", "conv1."),
    (r"\brbr_1x1\.", "conv2."),
    (r"\b(conv[12])\.bn\.", r"\1.norm."),
    (r"\brbr_identity\.", "identity."),
    (_ATTENTION + r"aggregate\.", r"loftr_coarse.layers.\1.aggregation.q_aggregation."),
    (_ATTENTION + r"norm1\.", r"loftr_coarse.layers.\1.aggregation.norm."),
    (_ATTENTION + r"([qkv])_proj\.", r"loftr_coarse.layers.\1.attention.\2_proj."),
    (_ATTENTION + r"merge\.", r"loftr_coarse.layers.\1.attention.o_proj."),
    (_ATTENTION + r"mlp\.0\.", r"loftr_coarse.layers.\1.mlp.fc1."),
    (_ATTENTION + r"mlp\.2\.", r"loftr_coarse.layers.\1.mlp.fc2."),
    (_ATTENTION + r"norm2\.", r"loftr_coarse.layers.\1.mlp.layer_norm."),
    (r"fine_preprocess\.layer3_outconv\.", "refinement_layer.out_conv."),
    (r"fine_preprocess\.layer2_", "refinement_layer.out_conv_layers.0."),
    (r"fine_preprocess\.layer1_", "refinement_layer.out_conv_layers.1."),
    (r"\boutconv\.", "out_conv1."),
    (r"\boutconv2\.0\.", "out_conv2."),
    (r"\boutconv2\.1\.", "batch_norm."),
    (r"\boutconv2\.3\.", "out_conv3."),
)


def convert(published: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return weights under their authors' names under those of transformers."""
    return {_renamed(name): tensor for name, tensor in published.items()}


def _renamed(name: str) -> str:
    for theirs, ours in _AUTHORS_NAMES:
        name = re.sub(theirs, ours, name)

    def turn(layer: re.Match[str]) -> str:
        kind = "cross" if int(layer[1]) % 2 else "self"
        return f"efficientloftr.local_feature_transformer.layers.{int(layer[1]) // 2}.{kind}_attention."

    return re.sub(_ATTENTION, turn, name)


@dataclass(frozen=True)
class Coarse:
    """The first stage of a batch; L cells an image.

    Attributes:
        cells: (B, 2, C, H / 8, W / 8) features of the cells of both images.
        pyramid: (2 B, C', ...) features of the backbone, at a half and at a quarter of the size.
        confidence: (B, L, L) match probabilities.
    """

    cells: torch.Tensor
    pyramid: tuple[torch.Tensor, ...]
    confidence: torch.Tensor


@dataclass(frozen=True)
class Fine:
    """The second stage: M matches, P pixels in the window of image 0 and of image 1.

    Attributes:
        probability: (M, P, P) that two pixels are the same point.
        similarity: (M, P, WINDOW + 2, WINDOW + 2) logits for the part of a pixel, with a margin of one pixel.
    """

    probability: torch.Tensor
    similarity: torch.Tensor


def match_cells(
    net: Any, image0: torch.Tensor, image1: torch.Tensor, mask0: torch.Tensor, mask1: torch.Tensor
) -> Coarse:
    """Run the first stage on (B, 1, H, W) gray images; the (B, L) masks of cells are False where padded.

    The masks keep padding from being matched; the features' attention has none and sees it as black.
    """
    if isinstance(net.efficientloftr.backbone, XFeatBackbone):
        image0, image1 = _normalised(image0, mask0), _normalised(image1, mask1)
    cells, *pyramid = net.efficientloftr(torch.stack([image0, image1], 1)).feature_maps
    tokens0, tokens1 = cells.flatten(3).mT.unbind(1)
    return Coarse(cells, tuple(pyramid), dual_softmax(tokens0, tokens1, mask0, mask1))


def _normalised(images: torch.Tensor, cells: torch.Tensor) -> torch.Tensor:
    """Return (B, 1, H, W) images as XFeat takes them; the (B, L) masks of cells are False where padded."""
    h, w = (side // CELL for side in images.shape[2:])
    return normalised(images, cells.reshape(-1, h, w).repeat_interleave(CELL, 1).repeat_interleave(CELL, 2))


def refine(net: Any, coarse: Coarse, ids: Ids) -> Fine:
    """Run the second stage on matches."""
    b_ids, i_ids, j_ids = ids
    channels = net.config.hidden_size
    top = (coarse.cells / channels**0.5).flatten(0, 1)
    features = net.refinement_layer.forward_pyramid(top, list(reversed(coarse.pyramid)))
    features0, features1 = features.unflatten(0, (-1, 2)).unbind(1)
    width = coarse.cells.shape[-1]
    window0 = windows(features0, b_ids, i_ids, width, stride=WINDOW, size=WINDOW, margin=0)
    window1 = windows(features1, b_ids, j_ids, width, stride=WINDOW, size=WINDOW + 2, margin=1)
    # the last channels say which part of a pixel, the others which pixel
    part = net.config.fine_matching_slice_dim
    whole = features.shape[1] - part
    # features are made smaller before they are multiplied: float16 ends at 65504
    similarity = (window0[..., :whole] / whole**0.5) @ (window1[..., :whole] / whole**0.5).mT
    around = (WINDOW + 2, WINDOW + 2)
    both = (similarity.softmax(1) * similarity.softmax(2)).unflatten(2, around)
    logits = window0[..., whole:] @ (window1[..., whole:] / part**0.5).mT
    logits = logits / net.config.fine_matching_regress_temperature
    return Fine(both[..., 1:-1, 1:-1].flatten(2), logits.unflatten(2, around))


def best_pixels(fine: Fine) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the (M,) most probable pixels of the windows in image 0 and in image 1."""
    pixels = fine.probability.shape[2]
    best = fine.probability.flatten(1).argmax(1)
    return best // pixels, best % pixels


def subpixel(fine: Fine, m: torch.Tensor, pixel0: torch.Tensor, pixel1: torch.Tensor) -> torch.Tensor:
    """Return (K, 2): the expected offsets in pixels, within one, of matches ``m`` (K,) from pixels of their windows.

    The 3 x 3 logits are taken as the published weights learnt them: counted without the margin, around again at 0.
    """
    step = torch.arange(-1, 2, device=m.device)
    rows = (pixel1 // WINDOW)[:, None, None] + step[:, None]
    columns = (pixel1 % WINDOW)[:, None, None] + step
    logits = fine.similarity[m[:, None, None], pixel0[:, None, None], rows, columns]
    heat = logits.flatten(1).softmax(1).reshape(-1, 3, 3)
    return torch.stack([(heat.sum(1) * step).sum(1), (heat.sum(2) * step).sum(1)], 1)


def pixel_offset(pixel: torch.Tensor) -> torch.Tensor:
    """Return (..., 2): how far pixels of a window are from their cell's point; the window's middle is that point."""
    return torch.stack([pixel % WINDOW, pixel // WINDOW], -1) - (WINDOW - 1) / 2
