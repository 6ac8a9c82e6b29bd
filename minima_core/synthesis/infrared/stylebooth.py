"""The published infrared picture: StyleBooth with MINIMA's adapter, a latent editor that follows one instruction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field, field_validator

from minima_core import licences, weights
from minima_core.errors import WeightsError
from minima_core.io.weights import read_metadata
from minima_core.licences import Licence
from minima_core.manifest import file_sha256
from minima_core.synthesis.base import Rendition, Source
from minima_core.synthesis.infrared import _canvas, _convert
from minima_core.synthesis.infrared._latent_editor import Guidance, LatentEditor
from minima_core.synthesis.infrared._networks import ADAPTER, CHECKPOINT, CLIP, published_networks, random_networks
from minima_core.synthesis.network import NetworkEngine

# of the canvas, in single precision: decoding one takes 4.1 kB (measured), its predictions 2.2 kB
BYTES_PER_PIXEL = 4500


class StyleBooth(NetworkEngine):
    """Infrared by an edit of the picture's latent (spec/data-engine.md section 2; arXiv 2404.12154, 2412.19412).

    Pictures with a side above 900 are worked on at their size, others in a square of 1024. One with a side above
    ``max_side`` is brought down to that and its result up again: pieces of it, edited apart, would not agree on which
    things are warm. Up to that bound the original's sizes are kept to the pixel.

    The noise of a picture comes from its own generator on the CPU, so that it is the same on every device.
    """

    class Params(NetworkEngine.Params):
        """``adapter``: ``published`` (goes with published weights), ``none`` or an adapter folder such as
        ``pretrain_infrared`` makes; ``steps``: of the sampler; ``text_scale``, ``image_scale``: weights of the
        instruction and of the picture; ``rescale``: share of the correction of the guided prediction's spread;
        ``native``: whether big pictures are worked on at their size; ``max_side``: pixels up to which they are."""

        adapter: str
        steps: int = Field(ge=1, le=1000)
        text_scale: float = Field(ge=0)
        image_scale: float = Field(ge=0)
        rescale: float = Field(ge=0, le=1)
        native: bool
        max_side: int = Field(ge=_canvas.SIDE)

        @field_validator("weights")
        @classmethod
        def _known(cls, value: str) -> str:
            if value in {"published", "random"}:
                return value
            raise ValueError("give published or random; what was trained here is an adapter")

    params: StyleBooth.Params
    seeded: ClassVar[bool] = True
    editor: LatentEditor

    def published(self) -> tuple[str, ...]:
        """Return the base, the text tower with its tokens, and the adapter where it is in use."""
        return (CHECKPOINT, CLIP, *([ADAPTER] if self.params.adapter == "published" else []))

    def memory(self, width: int, height: int) -> int:
        """Return about how many bytes one image of this size takes on the device beside the weights."""
        size = self._canvas(width, height).size
        return BYTES_PER_PIXEL * size[0] * size[1] * self.dtype.itemsize // 4

    def terms(self) -> Licence:
        """Return the licence of the engine and its weights together, that of an adapter made here included.

        Raises:
            WeightsError: if that is not there.
        """
        if (folder := self._adapter_here()) is None:
            return super().terms()
        if not folder.is_dir():
            raise WeightsError(f"no adapter folder {folder}; name one that `python -m tasks.pretrain_infrared` wrote")
        file = folder / "adapter_model.safetensors"
        stated = read_metadata(file).get("licence", "") if file.is_file() else ""
        return licences.combine([super().terms(), licences.named(stated) if stated else licences.UNSTATED])

    def sources(self) -> dict[str, str]:
        """Return the sha256 of each weight file in use."""
        found = super().sources()
        if (folder := self._adapter_here()) is not None:
            files = [path for path in sorted(folder.rglob("*")) if path.suffix in {".safetensors", ".bin"}]
            found |= {f"adapter/{path.relative_to(folder)}": file_sha256(path) for path in files}
        return found

    def load(self) -> None:
        """Make the networks, with the adapter merged in, and read the instruction once and for all.

        Raises:
            WeightsError: if weights are missing or do not fit.
        """
        networks = published_networks() if self.weights == "published" else random_networks()
        if (folder := self._adapter_folder()) is not None:
            _convert.merge(_convert.read_adapter(folder), networks.unet, networks.text, networks.names)
        self.editor = networks.editor(self.device, self.dtype)

    def _adapter_here(self) -> Path | None:
        """Return the folder of an adapter that is the user's own."""
        return None if self.params.adapter in {"published", "none"} else Path(self.params.adapter)

    def _adapter_folder(self) -> Path | None:
        if self.params.adapter == "published" and self.weights == "published":
            return weights.fetch_repository(ADAPTER)
        return self._adapter_here()

    def _canvas(self, width: int, height: int) -> _canvas.Canvas:
        params, multiple = self.params, self.editor.stride
        return _canvas.plan(width, height, native=params.native, max_side=params.max_side, multiple=multiple)

    def _synthesise_batch(self, sources: Sequence[Source], rngs: Sequence[np.random.Generator]) -> list[Rendition]:
        height, width = sources[0].image.shape[:2]
        canvas = self._canvas(width, height)
        seeds = [int(rng.integers(2**63)) for rng in rngs]
        shape = (4, canvas.size[1] // self.editor.stride, canvas.size[0] // self.editor.stride)
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
        guidance = Guidance(self.params.text_scale, self.params.image_scale, self.params.rescale)
        laid = [_canvas.lay(source.image, canvas) for source in sources]
        with self.computing:
            made = self.editor.edit(laid, noise.to(self.device), guidance, steps=self.params.steps)
            pictures = [_to_uint8(_canvas.lift(picture, canvas, width, height)) for picture in made]
        return [Rendition(picture, {"noise": seed}) for picture, seed in zip(pictures, seeds, strict=True)]


def _to_uint8(picture: torch.Tensor) -> np.ndarray:
    """Return (3, H, W) floats, about [0, 1], as (H, W, 3) uint8, rounded."""
    return (picture.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).contiguous().cpu().numpy()
