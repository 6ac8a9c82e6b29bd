"""Line drawings by the Anime2Sketch network, in the steps of the published engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import cv2
import numpy as np
import torch
from PIL import Image
from pydantic import Field, FiniteFloat

from minima_core import weights
from minima_core.errors import WeightsError
from minima_core.synthesis.base import Rendition, Source
from minima_core.synthesis.network import NetworkEngine
from minima_core.synthesis.sketch._clahe import equalise
from minima_core.synthesis.sketch._generator import REDUCTION, Generator

FILES = {"improved": "anime2sketch-improved.bin", "default": "anime2sketch-default.pth"}
NARROW = 4  # channels of the random network's first level


class Anime2Sketch(NetworkEngine):
    """Dark strokes on light paper (Anime2Sketch of Mukosame, MIT; spec/data-engine.md section 6).

    The network sees a square, whatever the picture's shape, with its local contrast equalised, and its drawing is
    stretched back.
    """

    class Params(NetworkEngine.Params):
        """``variant``: which of the two networks; ``load_size``: side of the square that the network sees, in pixels;
        ``clahe_clip``: limit of the contrast equalisation, 0 or less for none."""

        weights: Literal["published", "random"]
        variant: Literal["improved", "default"]
        load_size: int = Field(ge=REDUCTION, multiple_of=REDUCTION)
        clahe_clip: FiniteFloat

    params: Anime2Sketch.Params
    encoding: ClassVar[Literal["png", "jpeg95"]] = "png"
    gpus: ClassVar[float] = 0.5  # two processes keep it busy where one waits for its pictures

    def published(self) -> tuple[str, ...]:
        """Return the name of the variant's file."""
        return (FILES[self.params.variant],)

    def load(self) -> None:
        """Make the generator."""
        improved = self.params.variant == "improved"
        made = _random(improved) if self.weights == "random" else _published(improved, *self.published())
        self.net = made.to(self.device, self.dtype).eval()

    def memory(self, width: int, height: int) -> int:  # noqa: ARG002, the network's square has one size
        """Return about how many bytes one image takes: the maps of the outermost blocks."""
        return 400 * self.dtype.itemsize * self.params.load_size**2

    def _synthesise_batch(self, sources: Sequence[Source], rngs: Sequence[np.random.Generator]) -> list[Rendition]:  # noqa: ARG002, nothing is drawn
        height, width = sources[0].image.shape[:2]
        squares = np.stack([square(source.image, self.params.load_size) for source in sources])
        with self.computing:
            batch = prepare(torch.from_numpy(squares).to(self.device), self.params.clahe_clip)
            drawings = to_gray(self.net(batch.to(self.dtype))).cpu().numpy()
        return [Rendition(stretched(drawing, width, height)) for drawing in drawings]


def square(image: np.ndarray, side: int) -> np.ndarray:
    """Return (side, side, 3) uint8 of an (H, W, 3) image; its aspect ratio is not kept."""
    return np.array(Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC))


def prepare(squares: torch.Tensor, clip: float) -> torch.Tensor:
    """Return (B, 3, S, S) float32 in [-1, 1], what the network is given of (B, S, S, 3) uint8 pictures.

    The way to [-1, 1] and back before the equalisation is the original's: it rounds some grey levels down.
    """
    signed = (squares.permute(0, 3, 1, 2).contiguous().float() / 255 - 0.5) / 0.5
    return signed if clip <= 0 else (equalise((signed + 1) / 2, clip) - 0.5) / 0.5


def to_gray(drawings: torch.Tensor) -> torch.Tensor:
    """Return (B, S, S) uint8 of (B, 1, S, S) in [-1, 1], truncated."""
    return ((drawings[:, 0].float() + 1) / 2 * 255).to(torch.uint8)


def stretched(drawing: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return (height, width, 3) uint8 of an (S, S) drawing, three equal channels."""
    gray = np.array(Image.fromarray(drawing).resize((width, height), Image.Resampling.BICUBIC))
    return cv2.merge([gray] * 3)


def _published(improved: bool, name: str) -> Generator:
    """Return the generator with the weights of a published file.

    Raises:
        WeightsError: if they cannot be had or do not fit.
    """
    state = {key.removeprefix("module."): value for key, value in weights.load(name).items()}
    net = Generator(improved=improved)
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"{name} does not fit the generator: {str(error).splitlines()[1].strip()}") from None
    return net


def _random(improved: bool) -> Generator:
    """Return a narrow generator with random weights, the same ones each time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Generator(improved=improved, width=NARROW)
