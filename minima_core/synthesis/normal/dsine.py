"""Normals from one image by DSINE, the network of the published engine; for research only."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import shorten
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F

from minima_core import licences
from minima_core.errors import WeightsError
from minima_core.licences import Licence
from minima_core.synthesis.base import Rendition, Source
from minima_core.synthesis.network import NetworkEngine
from minima_core.synthesis.normal._dsine_encoder import B5, Widths
from minima_core.synthesis.normal._dsine_network import Dsine
from minima_core.synthesis.normal.dataset import default_intrinsics, encode
from minima_core.weights import load

MULTIPLE = 32  # of both sides of what the network is given
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TRIAL = Widths(8, (8, 8, 8, 8, 8, 8, 8), (1, 1, 1, 1, 1, 1, 1), 64)


class DsineNormal(NetworkEngine):
    """Outward normals of a single image, x right, y down, z forward (spec/data-engine.md section 5).

    Unlike the published engine it uses the data set's intrinsics where there are any; otherwise 60 degrees over the
    longer side are assumed. The record says which.
    """

    class Params(NetworkEngine.Params):
        """The network has no settings of its own."""

        weights: Literal["published", "random"]

    params: DsineNormal.Params
    reads: ClassVar[frozenset[str]] = frozenset({"depth", "camera"})  # the gate compares with depth, where there is any
    licence: ClassVar[Licence] = licences.DSINE
    gpus: ClassVar[float] = 0.5  # two processes keep it busy where one waits for its pictures

    def published(self) -> tuple[str, ...]:
        """Return the name of the one file."""
        return ("dsine.pt",)

    def load(self) -> None:
        """Make the network."""
        net = _random() if self.weights == "random" else _published(*self.published())
        self.net = net.to(self.device, self.dtype).eval()

    def memory(self, width: int, height: int) -> int:
        """Return about how many bytes one image of this size takes: the widest maps hold 400 values for each pixel."""
        left, right, top, bottom = padding(width, height)
        return 400 * self.dtype.itemsize * (width + left + right) * (height + top + bottom)

    def _synthesise_batch(self, sources: Sequence[Source], rngs: Sequence[np.random.Generator]) -> list[Rendition]:  # noqa: ARG002, nothing is drawn
        height, width = sources[0].image.shape[:2]
        left, _, top, _ = padding(width, height)
        images = torch.from_numpy(np.stack([source.image for source in sources]))
        K = np.stack([default_intrinsics(width, height) if s.K is None else s.K for s in sources])
        given = torch.from_numpy(padded_intrinsics(K, left, top))
        with self.computing:
            batch = prepare(images.to(self.device)).to(self.dtype)
            normals = self.net(batch, given.to(self.device))[..., top : top + height, left : left + width]
            made = normals.permute(0, 2, 3, 1).contiguous().cpu().numpy()
        stated = ["60 degrees assumed" if source.K is None else "data set" for source in sources]
        return [Rendition(encode(n), {"intrinsics": s}) for n, s in zip(made, stated, strict=True)]


def padding(width: int, height: int) -> tuple[int, int, int, int]:
    """Return the pixels left, right, above and below that make both sides multiples of 32; the odd one comes last."""
    across, down = -width % MULTIPLE, -height % MULTIPLE
    return across // 2, across - across // 2, down // 2, down - down // 2


def padded_intrinsics(K: np.ndarray, left: int, top: int) -> np.ndarray:
    """Return (B, 3, 3) float32 intrinsics of images to which pixels were added on the left and above."""
    moved = K.copy()
    moved[:, 0, 2] += left
    moved[:, 1, 2] += top
    return moved.astype(np.float32)


def prepare(images: torch.Tensor) -> torch.Tensor:
    """Return (B, 3, h, w) float32, what the network is given of (B, H, W, 3) uint8: black around it, normalised."""
    values = images.permute(0, 3, 1, 2).float() / 255
    values = F.pad(values, padding(values.shape[-1], values.shape[-2]))
    mean, std = (values.new_tensor(v).view(1, 3, 1, 1) for v in (MEAN, STD))
    return (values - mean) / std


def network(state: dict[str, torch.Tensor]) -> Dsine:
    """Return the published network with its weights, whose names may begin with ``module.``.

    Raises:
        WeightsError: if a tensor is missing, has another shape or is one too many.
    """
    with torch.device("meta"):  # filling 73 million weights at random first would take seconds
        net = Dsine(B5)
    try:
        net.load_state_dict({name.removeprefix("module."): tensor for name, tensor in state.items()}, assign=True)
    except RuntimeError as error:
        reason = shorten(str(error).splitlines()[1], 150, placeholder=" …")
        raise WeightsError(f"dsine.pt does not fit the network ({reason}); it is not the published file") from None
    return net


def _published(name: str) -> Dsine:
    content = load(name)
    if not isinstance(content.get("model"), dict):
        raise WeightsError(f"{name} holds no weights under 'model'; it is not the published file")
    return network(content["model"])


def _random() -> Dsine:
    """Return a small network of the same architecture, the same one each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Dsine(TRIAL, hidden=8, decoded=8)
