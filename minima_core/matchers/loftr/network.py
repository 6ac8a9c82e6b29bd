"""kornia's LoFTR taken apart, so that training may choose which matches are refined."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any, Literal

import torch
from kornia.feature import LoFTR as KorniaLoFTR
from kornia.feature.loftr.loftr import default_cfg
from kornia.feature.loftr.loftr_module.linear_attention import LinearAttention

from minima_core.geometry.cells import CELL
from minima_core.matchers._semidense import Ids, dual_softmax

Positions = Literal["buggy", "fixed"]
Size = Literal["full", "small"]
FINE = 2  # pixels between two fine features
RADIUS = 2  # fine features from a window's centre to its edge
_SMALL: dict[str, dict[str, Any]] = {
    "resnetfpn": {"initial_dim": 32, "block_dims": [32, 48, 64]},
    "coarse": {"d_model": 64, "d_ffn": 64, "nhead": 4, "layer_names": ["self", "cross"] * 2},
    "fine": {"d_model": 32, "d_ffn": 32, "nhead": 4},
}


def build(size: Size, positions: Positions, threshold: float) -> KorniaLoFTR:
    """Return the network with random weights; ``"small"`` is for training on a CPU and has no published weights.

    The positions are part of what weights mean: ``"buggy"`` is the encoding that the official checkpoint was trained
    with, whose frequencies fall far too fast, ``"fixed"`` the one that MINIMA fine-tuned it to (spec section 4.2).
    """
    config: dict[str, Any] = copy.deepcopy(default_cfg)
    if size == "small":
        for part, changed in _SMALL.items():
            config[part].update(changed)
    config["coarse"]["temp_bug_fix"] = positions == "fixed"
    config["match_coarse"]["thr"] = threshold
    net = KorniaLoFTR(pretrained=None, config=config)
    for transformer in (net.loftr_coarse, net.loftr_fine):
        for layer in transformer.layers:
            layer.attention = SingleAttention()
    return net


class SingleAttention(LinearAttention):
    """kornia's linear attention, in single precision whatever that of its tokens is.

    It divides by a sum of ``elu(x) + 1``, which half precision takes for zero where it is small, for x below -6 or so:
    the sum becomes the 1e-6 that is added to it, and gradients grow by as much.
    """

    def forward(
        self,
        queries: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        q_mask: torch.Tensor | None = None,
        kv_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Take (B, L, H, D) queries, (B, S, H, D) keys and values and the masks of either; return (B, L, H, D)."""
        with torch.autocast(queries.device.type, enabled=False):
            seen: torch.Tensor = super().forward(queries.float(), keys.float(), values.float(), q_mask, kv_mask)
        return seen.to(queries.dtype)


@dataclass(frozen=True)
class Coarse:
    """The first stage of a batch; L and N cells an image.

    Attributes:
        tokens0: (B, L, C) cells of images 0.
        tokens1: (B, N, C) cells of images 1.
        fine0: (B, C', H / 2, W / 2) fine features of images 0.
        fine1: likewise of images 1.
        confidence: (B, L, N) match probabilities.
    """

    tokens0: torch.Tensor
    tokens1: torch.Tensor
    fine0: torch.Tensor
    fine1: torch.Tensor
    confidence: torch.Tensor


def match_cells(
    net: KorniaLoFTR, image0: torch.Tensor, image1: torch.Tensor, mask0: torch.Tensor, mask1: torch.Tensor
) -> Coarse:
    """Run the first stage on (B, 1, S, S) gray images; the (B, L) masks of cells are False where padded."""
    both = net.extract_features(torch.cat([image0, image1]))
    tokens0, tokens1 = both["coarse"].flatten(2).mT.contiguous().chunk(2)
    tokens0, tokens1 = net.loftr_coarse(tokens0, tokens1, mask0, mask1)
    fine0, fine1 = both["fine"].chunk(2)
    return Coarse(tokens0, tokens1, fine0, fine1, dual_softmax(tokens0, tokens1, mask0, mask1))


def refine(net: KorniaLoFTR, coarse: Coarse, ids: Ids) -> torch.Tensor:
    """Return (M, 3): the offsets of matches in image 1, x and y in units of the window's radius, and their spread."""
    b_ids, i_ids, j_ids = ids
    if not len(b_ids):
        return coarse.tokens0.new_zeros(0, 3)
    unused = coarse.tokens0.new_zeros(len(b_ids), 2)  # the places of the cells, which kornia adds offsets to
    data: dict[str, Any] = {"b_ids": b_ids, "i_ids": i_ids, "j_ids": j_ids, "stride_c": CELL, "stride_f": FINE}
    data |= {"mkpts0_c": unused, "mkpts1_c": unused, "mconf": unused[:, 0]}
    windows = net.fine_preprocess(coarse.fine0, coarse.fine1, coarse.tokens0, coarse.tokens1, data)
    net.fine_matching(*net.loftr_fine(*windows), data)
    return data["expec_f"]
