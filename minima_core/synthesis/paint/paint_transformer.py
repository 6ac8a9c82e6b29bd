"""The published paint engine: the Paint Transformer, with its weights or with ones that were trained here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch

from minima_core import weights
from minima_core.errors import WeightsError
from minima_core.io.weights import read_checkpoint
from minima_core.manifest import file_sha256
from minima_core.synthesis.base import Rendition, Source
from minima_core.synthesis.network import NetworkEngine
from minima_core.synthesis.paint._meta_brushes import PUBLISHED_BRUSHES, own_brushes, published_brushes
from minima_core.synthesis.paint._paint_passes import FinalPass, paint, square_side
from minima_core.synthesis.paint._painter import (
    PUBLISHED_SIZE,
    TINY_SIZE,
    Painter,
    PainterSize,
    random_painter,
    size_of,
)

CHECKPOINT = "paint-transformer.pth"


class PaintTransformer(NetworkEngine):
    """Strokes that a network proposes, from coarse to fine (Liu et al., ICCV 2021; spec/data-engine.md section 7)."""

    class Params(NetworkEngine.Params):
        """``brushes``: the published marks, or ones made here, which need no download (random weights always take
        these); ``final_pass``: ``all`` strokes are laid in the last pass, as the published program does by an
        oversight, or only the ``decided`` ones, as in the passes before."""

        brushes: Literal["published", "own"]
        final_pass: FinalPass

    params: PaintTransformer.Params
    encoding: ClassVar[Literal["png", "jpeg95"]] = "jpeg95"
    gpus: ClassVar[float] = 0.5  # two processes keep it busy where one waits for its pictures
    painter: Painter
    brushes: torch.Tensor

    def published(self) -> tuple[str, ...]:
        """Return the names of the checkpoint and the brush marks."""
        return (CHECKPOINT, *self._published_brushes())

    def files(self) -> tuple[str, ...]:
        """Return the published names of what is loaded; weights that were trained here may use published brushes."""
        return self.published() if self.weights == "published" else self._published_brushes()

    def _published_brushes(self) -> tuple[str, ...]:
        return PUBLISHED_BRUSHES if self.params.brushes == "published" and self.weights != "random" else ()

    def sources(self) -> dict[str, str]:
        """Return the sha256 of each file in use, the brush marks too where the weights were trained here."""
        marks = weights.fetch(self._published_brushes())
        return super().sources() | {name: file_sha256(path) for name, path in marks.items()}

    def load(self) -> None:
        """Make the network and the brush marks.

        Raises:
            WeightsError: if the weights cannot be had, or are those of another network.
        """
        painter = random_painter(self._size(), 0)
        if self.weights != "random":
            try:
                painter.load_state_dict(self._state())
            except RuntimeError as error:
                raise WeightsError(f"{self._file()} does not fit: {' '.join(str(error).split())[:300]}") from None
        self.painter = painter.to(self.device, self.dtype)
        marks = published_brushes() if self._published_brushes() else own_brushes()
        self.brushes = marks.to(self.device)

    def _file(self) -> str:
        return CHECKPOINT if self.weights == "published" else self.params.weights

    def _size(self) -> PainterSize:
        if self.weights == "local":
            return size_of(Path(self.params.weights))
        return TINY_SIZE if self.weights == "random" else PUBLISHED_SIZE

    def _state(self) -> dict[str, torch.Tensor]:
        if self.weights == "published":
            return weights.load(CHECKPOINT)
        return read_checkpoint(Path(self.params.weights), "train it again or set `weights: published`")

    def memory(self, width: int, height: int) -> int:
        """Return about how many bytes one image takes: its square canvas, target and patches, a few times over."""
        return 160 * square_side(height, width) ** 2

    def _synthesise_batch(self, sources: Sequence[Source], rngs: Sequence[np.random.Generator]) -> list[Rendition]:  # noqa: ARG002, nothing is drawn
        together = len(sources) if self.device.type == "cuda" else 1
        groups = [sources[k : k + together] for k in range(0, len(sources), together)]
        with self.computing:
            return [Rendition(picture) for group in groups for picture in self._painted(group)]

    def _painted(self, sources: Sequence[Source]) -> np.ndarray:
        """Return (B, H, W, 3) uint8 paintings; values are cut off, not rounded, as in the published program."""
        pictures = torch.from_numpy(np.stack([source.image for source in sources])).to(self.device)
        target = pictures.permute(0, 3, 1, 2).float() / 255
        painted = paint(self.painter, target, self.brushes, self.params.final_pass)
        return (painted * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()
