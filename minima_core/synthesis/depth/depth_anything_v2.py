"""Depth pictures from one image by Depth Anything V2, in the encoding of the published engine."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field

from minima_core.errors import WeightsError
from minima_core.synthesis.base import Rendition, Source
from minima_core.synthesis.depth._spectral import colour
from minima_core.synthesis.network import NetworkEngine
from minima_core.weights import fetch_repository

PATCH = 14  # of the network, in pixels
LONGEST = 4  # the longer side in multiples of the input size; a strip would take memory without bound
MEAN, STD = (np.array(v, np.float32) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
FEATURES = {"small": 64, "base": 128, "large": 256}  # of the network's head, whose maps take most of the memory


class DepthAnythingV2(NetworkEngine):
    """Relative inverse depth of a single image (Yang et al. 2024; spec/data-engine.md section 3).

    The network is the transformers library's, the steps before and after it are the published engine's. The values are
    kept beside the picture: larger is nearer, up to an unknown scale and shift.
    """

    class Params(NetworkEngine.Params):
        """``model``: which of the published networks; ``input_size``: of the shorter side, in pixels."""

        weights: Literal["published", "random"]
        model: Literal["small", "base", "large"]
        input_size: int = Field(ge=PATCH)

    params: DepthAnythingV2.Params
    reads: ClassVar[frozenset[str]] = frozenset({"depth"})  # the gate compares with it, where the data set has it
    raw: ClassVar[bool] = True
    gpus: ClassVar[float] = 0.5  # two processes keep it busy where one waits for its pictures

    def published(self) -> tuple[str, ...]:
        """Return the name of the model's repository."""
        return (f"depth-anything-v2-{self.params.model}",)

    def load(self) -> None:
        """Make the network."""
        made = _random() if self.weights == "random" else _published(*self.published())
        self.net = made.to(self.device, self.dtype).eval()

    def memory(self, width: int, height: int) -> int:
        """Return about how many bytes one image of this size takes: a few maps of the head at the network's size."""
        net_width, net_height = plan(width, height, self.params.input_size)
        return 4 * self.dtype.itemsize * FEATURES[self.params.model] * net_width * net_height

    def _synthesise_batch(self, sources: Sequence[Source], rngs: Sequence[np.random.Generator]) -> list[Rendition]:  # noqa: ARG002, nothing is drawn
        prepared = np.stack([prepare(source.image, self.params.input_size) for source in sources])
        with self.computing:
            batch = torch.from_numpy(prepared).to(self.device, self.dtype)
            nearness = at_size(self.net(batch).predicted_depth, *sources[0].image.shape[:2]).cpu().numpy()
        return [Rendition(colour(values, np.ones(values.shape, bool)), raw=values) for values in nearness]


def plan(width: int, height: int, shortest: int) -> tuple[int, int]:
    """Return the width and height that the network sees: the shorter side ``shortest``, both whole patches.

    Of an image more than ``LONGEST`` times as long as wide, the longer side is held at that multiple.
    """
    scale = min(shortest / min(width, height), LONGEST * shortest / max(width, height))

    def whole(side: float) -> int:
        return PATCH * max(round(side / PATCH), math.ceil(min(side, shortest) / PATCH))

    return whole(scale * width), whole(scale * height)


def prepare(image: np.ndarray, shortest: int) -> np.ndarray:
    """Return (3, h, w) float32, what the network is given of an (H, W, 3) uint8 image.

    The cubic resize overshoots [0, 1] on purpose: the published engine does not clip.
    """
    size = plan(image.shape[1], image.shape[0], shortest)
    resized = cv2.resize(image.astype(np.float32) / 255, size, interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(((resized - MEAN) / STD).transpose(2, 0, 1))


def at_size(nearness: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return (B, height, width) float32 of (B, h, w): bilinear, corners on corners.

    Rounding may not leave the map's range, else a constant map would become one of noise that the colours stretch.
    """
    given = nearness[:, None].float()
    low, high = given.amin((2, 3), keepdim=True), given.amax((2, 3), keepdim=True)
    resized = F.interpolate(given, (height, width), mode="bilinear", align_corners=True)
    return resized.clamp(low, high)[:, 0]


def _published(name: str) -> Any:
    from transformers import DepthAnythingForDepthEstimation

    folder = fetch_repository(name)
    try:
        return DepthAnythingForDepthEstimation.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{folder} does not hold {name}: {str(error).splitlines()[0]}") from None


def _random() -> Any:
    """Return a small network of the same architecture, the same one each time."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation

    backbone = {
        "model_type": "dinov2",
        "image_size": 70,
        "patch_size": PATCH,
        "hidden_size": 16,
        "num_hidden_layers": 4,
        "num_attention_heads": 1,
        "out_indices": [1, 2, 3, 4],
        "reshape_hidden_states": False,
    }
    config = DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=8,
        initializer_range=0.2,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return DepthAnythingForDepthEstimation(config)
