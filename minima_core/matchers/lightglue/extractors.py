"""The local features that LightGlue matches, behind one small face and always frozen.

XFeat, ALIKED and DISK are kornia's, SuperPoint is that of transformers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from kornia import feature as kornia
from kornia.color import rgb_to_grayscale
from torch import nn
from torch.nn import functional as F

from minima_core import weights


@dataclass(frozen=True)
class Features:
    """The keypoints of one image, strongest first.

    Attributes:
        kpts: (N, 2) float32 (x, y) pixels of the image that was given.
        scores: (N,) float32.
        desc: (N, D) float32, L2-normalised.
        size: width and height of that image.
        gray: (1, H, W) float32, that image without its colours, where matches are moved by what it shows.
    """

    kpts: torch.Tensor
    scores: torch.Tensor
    desc: torch.Tensor
    size: tuple[int, int]
    gray: torch.Tensor | None = None


class Extractor(nn.Module, ABC):
    """A frozen network that finds keypoints; it stays in evaluation mode whatever mode its owner is in."""

    SIZE_MULTIPLE: ClassVar[int]  # both sides of an image must be multiples of this
    FILE: ClassVar[str]  # the published weights

    net: nn.Module
    subpixel = False  # whether keypoints are moved to where they lie between pixels; only XFeat's can be

    def freeze(self) -> Self:
        """Turn gradients off and return the extractor."""
        self.requires_grad_(False)
        return self.eval()

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002 (the mode of a frozen network never changes)
        """Stay in evaluation mode: its batch statistics must not move."""
        return super().train(False)

    def load_published(self) -> None:
        """Load the official weights.

        Raises:
            WeightsError: if they cannot be had.
        """
        weights.load_strictly(self.net, self._weights(weights.load(self.FILE)), self.FILE)

    def _weights(self, published: Any) -> dict[str, torch.Tensor]:
        """Return the state dict inside the published file."""
        return dict(published)

    @torch.inference_mode()
    def extract(self, image: torch.Tensor, max_keypoints: int) -> Features:
        """Return at most ``max_keypoints`` features of a (3, H, W) image; images are done one by one.

        One by one, because convolutions over a batch may round differently from those over one image, and a cached
        feature must not depend on what else was in its batch.

        Raises:
            ValueError: if a side is no multiple of ``SIZE_MULTIPLE``, which matching sees to.
        """
        height, width = image.shape[-2:]
        if height % self.SIZE_MULTIPLE or width % self.SIZE_MULTIPLE:
            raise ValueError(f"sides of {width} x {height} are not multiples of {self.SIZE_MULTIPLE}")
        kpts, scores, desc = self._extract(image[None], max_keypoints)
        return Features(kpts.float(), scores.float(), desc.float(), (width, height))

    @abstractmethod
    def _extract(self, image: torch.Tensor, limit: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the strongest ``limit`` keypoints (N, 2), scores (N,), descriptors (N, D) of a (1, 3, H, W) image."""


def strongest(scores: torch.Tensor, limit: int) -> torch.Tensor:
    """Return the indices of the ``limit`` largest of (N,) scores, largest first.

    Equal scores stay in their order, which ``topk`` does not promise.
    """
    return torch.argsort(scores, descending=True, stable=True)[:limit]


def between_pixels(heatmap: torch.Tensor, kpts: torch.Tensor) -> torch.Tensor:
    """Move keypoints from the pixels of their peaks to the centre of mass of the 3 x 3 pixels about them.

    Args:
        heatmap: (1, 1, H, W), positive.
        kpts: (N, 2) whole pixels, x and y.

    Returns:
        (N, 2) float32, less than a pixel away along x and along y.
    """
    to = torch.arange(-1, 2, device=kpts.device)
    x, y = kpts.long().unbind(-1)
    padded = F.pad(heatmap.float(), (1, 1, 1, 1), mode="replicate")[0, 0]
    mass = padded[y[:, None, None] + 1 + to[:, None], x[:, None, None] + 1 + to]
    mass = mass / mass.sum((1, 2), keepdim=True)
    return kpts + torch.stack([(mass.sum(1) * to).sum(1), (mass.sum(2) * to).sum(1)], dim=-1)


class XFeat(Extractor):
    """XFeat, sparse (Potje et al., CVPR 2024); keypoints are whole pixels, as published, unless ``subpixel`` is set."""

    SIZE_MULTIPLE = 32  # other sizes kornia resizes itself, and then maps points back without the half pixel
    FILE = "xfeat.pt"

    def __init__(self) -> None:
        super().__init__()
        self.net = kornia.XFeat()

    def _weights(self, published: Any) -> dict[str, torch.Tensor]:
        return {f"net.{name}": tensor for name, tensor in published.items()}

    def _extract(self, image: torch.Tensor, limit: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Do what kornia's ``detectAndCompute`` does, bit for bit, but describe the keypoints that are kept only."""
        features: Any = self.net  # its parts have no types
        size = image.shape[-2:]
        dense, logits, reliability = features.net(image)
        heatmap = features._get_kpts_heatmap(logits)
        kpts = features._nms(heatmap, threshold=features.detection_threshold, kernel_size=5)
        likely = features._nearest(heatmap, kpts, *size) * features._bilinear(reliability, kpts, *size)
        scores = likely[0, :, 0]
        best = strongest(scores, limit)
        best = best[scores[best] > 0]
        desc = features.interpolator(F.normalize(dense, dim=1), kpts[:, best], *size)
        found = between_pixels(heatmap, kpts[0, best]) if self.subpixel else kpts[0, best]
        return found, scores[best], F.normalize(desc[0], dim=-1)


class Aliked(Extractor):
    """ALIKED-N16 (Zhao et al., 2023); keypoints are sub-pixel."""

    SIZE_MULTIPLE = 1
    FILE = "aliked-n16.pth"

    def __init__(self) -> None:
        super().__init__()
        self.net = kornia.ALIKED("aliked-n16")

    def _weights(self, published: Any) -> dict[str, torch.Tensor]:
        # a constant grid that later versions of the network keep as a buffer
        return {**published, "dkd.hw_grid": self.net.state_dict()["dkd.hw_grid"]}

    def _extract(self, image: torch.Tensor, limit: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = self.net(image)[0]
        best = strongest(found.keypoint_scores, limit)
        return found.keypoints[best], found.keypoint_scores[best], found.descriptors[best]


class Disk(Extractor):
    """DISK, trained with depth (Tyszkiewicz et al., 2020); keypoints are whole pixels."""

    SIZE_MULTIPLE = 16
    FILE = "disk-depth-save.pth"

    def __init__(self) -> None:
        super().__init__()
        self.net = kornia.DISK()

    def _weights(self, published: Any) -> dict[str, torch.Tensor]:
        return dict(published["extractor"])

    def _extract(self, image: torch.Tensor, limit: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = self.net(image)[0]
        best = strongest(found.detection_scores, limit)
        return found.keypoints[best], found.detection_scores[best], found.descriptors[best]


class SuperPoint(Extractor):
    """SuperPoint (DeTone et al., 2018); keypoints are whole pixels, and its weights are for research only.

    Training sees the keypoints that matching does: those over the threshold, at the distance of transformers. The
    reference trains with all over 0, three pixels apart, filled up with random ones (spec/training.md section 3.2).
    """

    _HEADS: ClassVar = {"P": "keypoint_decoder.conv_score_", "D": "descriptor_decoder.conv_descriptor_"}

    SIZE_MULTIPLE = 8
    FILE = "superpoint_v1.pth"

    def __init__(self) -> None:
        from transformers import SuperPointConfig, SuperPointForKeypointDetection  # takes seconds

        super().__init__()
        # the threshold that LightGlue was trained at, a tenth of the default
        self.net = SuperPointForKeypointDetection(SuperPointConfig(keypoint_threshold=5e-4))

    def _weights(self, published: Any) -> dict[str, torch.Tensor]:
        """Return the authors' weights (``conv1a``, ``convPa``, ``convDa``, …) under the names of transformers."""
        state = {}
        for name, tensor in published.items():
            part, _, kind = name.partition(".")
            block, side = part.removeprefix("conv")[:-1], part[-1]
            if block in self._HEADS:
                new = self._HEADS[block] + side
            else:
                new = f"encoder.conv_blocks.{int(block) - 1}.conv_{side}"
            state[f"{new}.{kind}"] = tensor
        return state

    def _extract(self, image: torch.Tensor, limit: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        net: Any = self.net  # its parts have no types
        encoded = net.encoder(rgb_to_grayscale(image))[0]
        kpts, scores = net.keypoint_decoder(encoded)
        # transformers leaves the margin free of keypoints at the top and on the left alone
        far = kpts.new_tensor(image.shape[:1:-1]) - net.config.border_removal_distance
        inner = (kpts < far).all(1)
        kpts, scores = kpts[inner], scores[inner]
        best = strongest(scores, limit)
        if not len(best):
            return kpts[best], scores[best], encoded.new_zeros(0, net.config.descriptor_decoder_dim)
        return kpts[best], scores[best], net.descriptor_decoder(encoded, kpts[best])


ExtractorName = Literal["xfeat", "aliked", "disk", "superpoint"]
EXTRACTORS: dict[str, type[Extractor]] = {"xfeat": XFeat, "aliked": Aliked, "disk": Disk, "superpoint": SuperPoint}
