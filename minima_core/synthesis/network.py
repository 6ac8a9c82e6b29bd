"""What engines with a network share: where weights come from, precision, batches that fit the memory."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from pydantic import field_validator

from minima_core import licences
from minima_core.errors import WeightsError
from minima_core.io.weights import read_metadata
from minima_core.licences import Licence
from minima_core.manifest import file_sha256
from minima_core.published import PUBLISHED, REPOSITORIES
from minima_core.synthesis.base import Engine, Rendition, Source, Weights
from minima_core.weights import fetch, fetch_repository

READ = {".safetensors", ".bin", ".json", ".txt"}  # what a folder of weights is read from
LARGEST_BATCH = 8


class NetworkEngine(Engine):
    """An engine whose network runs on any torch device; subclasses load it and give it batches."""

    class Params(Engine.Params):
        """``weights``: ``published``, ``random`` (to try the machinery; validation refuses what they make), or the path
        of a .safetensors file that was trained here; ``precision``: of the network's arithmetic."""

        weights: str
        precision: Literal["float32", "float16", "bfloat16"]

        @field_validator("weights")
        @classmethod
        def _known(cls, value: str) -> str:
            if value in {"published", "random"} or value.endswith(".safetensors"):
                return value
            raise ValueError("give published, random, or the path of a .safetensors file")

    params: NetworkEngine.Params
    reads: ClassVar[frozenset[str]] = frozenset()
    gpus: ClassVar[float] = 1.0  # one that diffuses keeps the whole of it busy
    device: torch.device
    # whoever uses the network holds it, until its output is in the host's memory: schedulers of diffusion models have a
    # state, and what other threads do before and after with other images takes no time of the GPU's
    computing: threading.Lock

    @abstractmethod
    def published(self) -> tuple[str, ...]:
        """Return the names, in the table of published weights, of all that is loaded with ``weights: published``."""

    @abstractmethod
    def load(self) -> None:
        """Make the network, with its weights, on ``self.device`` in ``self.dtype``."""

    def memory(self, width: int, height: int) -> int:
        """Return about how many bytes one image of this size takes on the device beside the weights."""
        return 2000 * width * height

    @property
    def dtype(self) -> torch.dtype:
        """The type of the network's weights and activations."""
        return getattr(torch, self.params.precision)

    @property
    def weights(self) -> Weights:
        """Which weights are in use."""
        given = self.params.weights
        return given if given in {"published", "random"} else "local"  # type: ignore[return-value]

    def files(self) -> tuple[str, ...]:
        """Return the published names of what is loaded with these settings."""
        return self.published() if self.weights == "published" else ()

    def terms(self) -> Licence:
        """Return the licence of the engine and its weights together."""
        parts = [self.licence, *((PUBLISHED.get(name) or REPOSITORIES[name]).licence for name in self.files())]
        if self.weights == "local":
            stated = read_metadata(Path(self.params.weights)).get("licence")
            parts.append(licences.named(stated) if stated else licences.UNSTATED)
        return licences.combine(parts)

    def sources(self) -> dict[str, str]:
        """Return the sha256 of each weight file in use, and of what else its folder is read for, a vocabulary."""
        if self.weights == "local":
            return {Path(self.params.weights).name: file_sha256(Path(self.params.weights))}
        found = {name: file_sha256(path) for name, path in fetch(n for n in self.files() if n in PUBLISHED).items()}
        for name in self.files():
            if name in REPOSITORIES:
                root = fetch_repository(name)
                paths = sorted(p for p in root.rglob("*") if p.suffix in READ)
                found |= {f"{name}/{path.relative_to(root)}": file_sha256(path) for path in paths}
        return found

    def setup(self, device: str = "cpu") -> None:
        """Load the network onto a torch device.

        Raises:
            WeightsError: if its weights cannot be had.
        """
        self.device = torch.device(device)
        self.computing = threading.Lock()
        self.batches: dict[tuple[int, int], int] = {}
        try:
            self.load()
        except ModuleNotFoundError as error:
            what = f"engine {self.params.engine} needs {error.name}"
            raise WeightsError(f"{what}; install it with `pip install 'minima-pipeline[engines]'`") from None

    def batch_size(self, width: int, height: int) -> int:
        """Return how many images fit into four fifths of the memory that is free; on a CPU batches gain nothing.

        An engine that takes a share of a GPU leaves the other share of its memory alone. The number is decided once for
        a size: later, batches before and beside would count, and how many images share one shows in the last bits.
        """
        if self.device.type != "cuda":
            return 1
        with self.computing:
            if (width, height) not in self.batches:
                kept = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
                free, whole = torch.cuda.mem_get_info(self.device)
                own = min(free + kept, self.gpus * whole)  # what torch kept is to be used again
                fitting = 0.8 * own / self.memory(width, height)
                self.batches[width, height] = int(np.clip(fitting, 1, LARGEST_BATCH))
            return self.batches[width, height]

    def synthesise_batch(
        self, sources: Sequence[Source], *, seed: int, modality: str, attempt: int = 0
    ) -> list[Rendition]:
        """Return renditions; several threads may ask at a time."""
        with torch.inference_mode():
            return super().synthesise_batch(sources, seed=seed, modality=modality, attempt=attempt)

    def _synthesise(self, source: Source, rng: np.random.Generator) -> Rendition:
        return self._synthesise_batch([source], [rng])[0]

    @abstractmethod
    def _synthesise_batch(self, sources: Sequence[Source], rngs: Sequence[np.random.Generator]) -> list[Rendition]:
        """Return the renditions of images of one size; hold ``computing`` for as long as it takes and no longer."""
