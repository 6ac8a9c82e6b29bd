"""What a synthesis engine is: one RGB image with its geometry in, one pixel-aligned image of the modality out."""

from __future__ import annotations

import importlib
import json
import pkgutil
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Literal

import numpy as np

from minima_core.config import Section, checked, unknown
from minima_core.errors import ConfigError
from minima_core.plugins import Plugins
from minima_core.random import rng


@dataclass(frozen=True)
class Source:
    """What an engine may look at.

    Attributes:
        name: id of the image, ``scene/stem``; it seeds the engine.
        image: (H, W, 3) uint8 RGB.
        depth: (H, W) float32, 0 where unknown, or None.
        K: (3, 3) float64 intrinsics, or None.
        material: (H, W) uint8 material ids of the synthetic world, or None.
    """

    name: str
    image: np.ndarray
    depth: np.ndarray | None = None
    K: np.ndarray | None = None
    material: np.ndarray | None = None


@dataclass(frozen=True)
class Rendition:
    """One image of a modality.

    Attributes:
        image: (H, W, 3) uint8 RGB, the size of its source.
        drawn: what the engine drew at random for this image, for the record.
    """

    image: np.ndarray
    drawn: dict[str, Any] = field(default_factory=dict)


class Engine(ABC):
    """Makes one modality.

    Constructing is cheap; ``setup`` loads weights; ``_synthesise`` depends on its arguments only. A modality is a
    package in ``minima_core/synthesis``, an engine a module in it that holds one subclass of this.
    """

    class Params(Section):
        """Settings, ``synthesis.<modality>`` in params.yaml; ``engine`` names the module."""

        engine: str

    licence: ClassVar[str] = "Apache-2.0"  # of the engine and its weights
    commercial: ClassVar[bool] = True
    encoding: ClassVar[Literal["png", "jpeg95"]] = "jpeg95"  # png where JPEG would smear (few colours, thin lines)

    def __init__(self, params: Section) -> None:
        self.params = params

    @property
    def suffix(self) -> str:
        """The suffix of picture files in this encoding."""
        return ".png" if self.encoding == "png" else ".jpg"

    def setup(self, device: str = "cpu") -> None:  # noqa: B027, most engines have nothing to load
        """Load what the engine needs; engines without weights need nothing."""

    def synthesise(self, source: Source, *, seed: int, modality: str) -> Rendition:
        """Return the modality's image of ``source``; the result depends on (seed, source, modality) and nothing else.

        Raises:
            Unavailable: if the source lacks what the modality is made from.
        """
        rendition = self._synthesise(source, rng(seed, source.name, modality))
        image = rendition.image
        if image.dtype != np.uint8 or image.shape != source.image.shape:
            raise AssertionError(
                f"{type(self).__name__} returned {image.dtype} {image.shape} for {source.name}, "
                f"uint8 {source.image.shape} expected"
            )
        return rendition

    @abstractmethod
    def _synthesise(self, source: Source, rng: np.random.Generator) -> Rendition:
        """Return the modality's image of one source."""


class _Modalities:
    """The modalities by name, and their engines by module."""

    package = "minima_core.synthesis"

    def names(self) -> list[str]:
        """Return the names of all modalities: the sub-packages, sorted."""
        path = importlib.import_module(self.package).__path__
        return sorted(m.name for m in pkgutil.iter_modules(path) if m.ispkg and not m.name.startswith("_"))

    def engines(self, modality: str) -> Plugins[Engine]:
        """Return the engines of a modality.

        Raises:
            ConfigError: if there is no such modality; the message lists the right names and the closest.
        """
        if modality not in self.names():
            raise ConfigError(f"unknown modality: {unknown(modality, self.names(), self.package)}")
        return Plugins(f"{self.package}.{modality}", Engine, f"engine of {modality}")  # type: ignore[type-abstract]

    def create(self, modality: str, settings: Any, where: str = "") -> Engine:
        """Return the engine that ``settings`` names, not yet set up.

        Args:
            modality: its name.
            settings: of the engine, and ``engine``, its name.
            where: what messages call the settings; ``synthesis.<modality>`` of params.yaml unless said otherwise.

        Raises:
            ConfigError: if the modality, the engine or a setting is unknown.
        """
        where = where or f"params.yaml: synthesis.{modality}"
        engines = self.engines(modality)
        if not isinstance(settings, dict) or "engine" not in settings:
            raise ConfigError(f"{where} must name its engine, one of {', '.join(engines.names())}")
        engine = engines.get(str(settings["engine"]))
        return engine(checked(settings, engine.Params, where))


MODALITIES = _Modalities()


@lru_cache(maxsize=1)
def engine_at_work(modality: str, settings: str) -> Engine:
    """Return the engine of settings in JSON, set up once in each worker process while its jobs are of one modality."""
    engine = MODALITIES.create(modality, json.loads(settings))
    engine.setup()
    return engine
