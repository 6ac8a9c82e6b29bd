"""kornia's LightGlue as this project runs it: every layer, no early exit, no pruning, full precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from kornia.feature import LightGlue as KorniaLightGlue

from minima_core import weights
from minima_core.matchers.lightglue.extractors import Features

Published = Literal["rgb", "minima"]
FILES: dict[Published, dict[str, str]] = {
    "rgb": {
        "xfeat": "xfeat-lighterglue.pt",
        "aliked": "aliked_lightglue.pth",
        "disk": "disk_lightglue.pth",
        "superpoint": "superpoint_lightglue.pth",
    },
    "minima": {"superpoint": "minima_lightglue.pth"},  # what its authors fine-tuned across modalities
}
_SHAPE = ("input_dim", "descriptor_dim", "n_layers", "num_heads")


def build(extractor: str, filter_threshold: float) -> KorniaLightGlue:
    """Return the network for an extractor's descriptors, with random weights.

    Early exit and pruning are off: they would make a pair's result depend on a threshold crossed by rounding, and in
    training every layer is supervised. Flash attention is off because it halves the precision on a GPU.
    """
    shape = {key: value for key, value in KorniaLightGlue.features[extractor].items() if key in _SHAPE}
    exact = {"depth_confidence": -1, "width_confidence": -1, "flash": False, "mp": False}
    settings: dict[str, Any] = {"features": None, **shape, **exact, "filter_threshold": filter_threshold}
    return KorniaLightGlue(**settings)


def load_published(net: KorniaLightGlue, name: str) -> None:
    """Load the published file ``name`` into the network of its extractor.

    Raises:
        WeightsError: if they cannot be had or do not fit.
    """
    weights.load_strictly(net, {**convert(weights.load(name), net.conf.n_layers), **_derived(net)}, name)


def convert(published: dict[str, Any], layers: int) -> dict[str, torch.Tensor]:
    """Return a published state dict under kornia's names.

    LighterGlue's file nests the network under ``matcher.`` beside the copy of XFeat that it was trained with, whose
    batch statistics had drifted; official inference runs the original XFeat, so the copy is left out. Old files keep
    the attention blocks in two lists, and DISK's has an unused scalar ``r`` a layer. A training's own checkpoint holds
    the weights under ``model``.
    """
    weights_alone = published.get("model", published)
    state = {k.removeprefix("matcher."): v for k, v in weights_alone.items() if not k.startswith("extractor.")}
    for i in range(layers):
        state.pop(f"log_assignment.{i}.r", None)
        for block in ("self_attn", "cross_attn"):
            old = f"{block}.{i}."
            state = {
                k.replace(old, f"transformers.{i}.{block}.") if k.startswith(old) else k: v for k, v in state.items()
            }
    return state


def _derived(net: KorniaLightGlue) -> dict[str, torch.Tensor]:
    return {"confidence_thresholds": net.state_dict()["confidence_thresholds"]}


@dataclass(frozen=True)
class Points:
    """A batch of one side's keypoints, padded to one length.

    Attributes:
        kpts: (B, N, 2) float32 pixels.
        desc: (B, N, D) float32.
        size: (B, 2) float32 width and height.
        mask: (B, N) bool, False where padded.
    """

    kpts: torch.Tensor
    desc: torch.Tensor
    size: torch.Tensor
    mask: torch.Tensor

    def to(self, device: torch.device) -> Points:
        """Return the same points on ``device``."""
        return Points(*(getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)))


def stack(sides: tuple[Sequence[Features], Sequence[Features]]) -> tuple[Points, Points]:
    """Return both sides of a batch of pairs as padded tensors.

    Where anything must be padded, every image of both sides gets at least one padded place: ``layers`` lets padding
    attend to padding, and an attention row with nothing to attend to would be NaN, forward and backward.
    """
    counts = [[len(found.scores) for found in side] for side in sides]
    ragged = any(min(side) == 0 or min(side) != max(side) for side in counts)
    points0, points1 = (_pad(side, max(count) + ragged) for side, count in zip(sides, counts, strict=True))
    return points0, points1


def _pad(side: Sequence[Features], length: int) -> Points:
    first = side[0]
    kpts = first.kpts.new_zeros(len(side), length, 2)
    desc = first.desc.new_zeros(len(side), length, first.desc.shape[1])
    mask = torch.zeros(len(side), length, dtype=torch.bool, device=kpts.device)
    for b, found in enumerate(side):
        n = len(found.scores)
        kpts[b, :n], desc[b, :n], mask[b, :n] = found.kpts, found.desc, True
    return Points(kpts, desc, kpts.new_tensor([found.size for found in side]), mask)


def layers(net: Any, points0: Points, points1: Points) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the (B, M, D) and (B, N, D) states after each layer; padding changes nothing for the real keypoints."""
    desc0, desc1 = net.input_proj(points0.desc), net.input_proj(points1.desc)
    with torch.autocast(desc0.device.type, enabled=False):  # half precision is not for pixels
        code0, code1 = (net.posenc(_normalised(points)) for points in (points0, points1))
    self0 = self1 = cross = None
    if not bool(points0.mask.all() and points1.mask.all()):  # attention without a mask is faster
        self0, self1, cross = (
            a.mask[:, None, :, None] == b.mask[:, None, None, :]
            for a, b in ((points0, points0), (points1, points1), (points0, points1))
        )
        # a keypoint whose other image has none attends to that image's padding: meaningless, but finite
        cross |= ~(points0.mask.any(1) & points1.mask.any(1))[:, None, None, None]
    for layer in net.transformers:
        desc0, desc1 = layer.self_attn(desc0, code0, self0), layer.self_attn(desc1, code1, self1)
        desc0, desc1 = layer.cross_attn(desc0, desc1, cross)
        yield desc0, desc1


def _normalised(points: Points) -> torch.Tensor:
    """Return the keypoints as LightGlue was trained on them: centred, the longer side from -1 to 1."""
    longest = points.size.amax(1)[:, None, None]
    return (points.kpts - points.size[:, None] / 2) / (longest / 2)
